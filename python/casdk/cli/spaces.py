"""The doctor's last step for several servers: it checks that they have one vector space, so that rows may be mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from casdk.cli.access import Access
from casdk.cli.exits import Exit, exit_of
from casdk.cli.trouble import Finding, TroubleError
from casdk.errors import CasdkError, ModelMismatchError

__all__ = ["compare"]

STEP = "space"


def compare(urls: Sequence[str], access: Access) -> Finding:
    """Return a finding that says whether servers have one vector space, or which of them differ from the others.

    Args:
        urls: The servers' addresses.
        access: Credential, TLS and timeouts to use.
    """
    try:
        spaces = {_space_of(url, access) for url in urls}
        found = [[url for url in urls if not _is_of(url, space, access)] for space in sorted(spaces)]
    except CasdkError as error:
        return TroubleError(str(error), "see the server's log", exit=exit_of(error)).finding(STEP)
    odd = min(found, key=lambda differing: (len(differing), differing[:1] == urls[:1]))
    if not odd:
        return Finding(step=STEP, ok=True, detail="all servers are of one vector space")
    rest = [url for url in urls if url not in odd]
    detail = f"{' and '.join(odd)}: another model than {' and '.join(rest)}, so their rows must not be mixed"
    return TroubleError(detail, "give all of them the same model", exit=Exit.SERVER).finding(STEP)


def _space_of(url: str, access: Access) -> str:
    with access.client(url) as client:
        return client.space()


def _is_of(url: str, space: str, access: Access) -> bool:
    try:
        _space_of(url, replace(access, expect_space=space))
    except ModelMismatchError:
        return False
    return True
