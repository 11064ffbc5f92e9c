"""What one exchange of a request and its reply has to observe; `Run` makes it, and transport and channel pass it on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from casdk._transport.channels.inspection import Check

if TYPE_CHECKING:
    from casdk._transport.channels.http2_direct import Begun

__all__ = ["DEFAULTS", "ExchangeOptions", "Headers"]

Headers: TypeAlias = Sequence[tuple[str, str]]
"""Names in lower case, and values. The credential is among them, so they are never shown."""


class ExchangeOptions(msgspec.Struct, frozen=True):
    """The options of one exchange.

    Attributes:
        context: W3C trace context of the request, sent as headers, too. A message of a websocket has no headers, so
            there only the request that opens the socket sends it, with the handshake.
        answer_by: The deadline of the request, in the engine's time. If it is cancelled later than that, no answer
            came in time; if earlier, the answer is not wanted any more.
        repeatable: Whether it may be sent again once its bytes may have reached the server.
        check: A check that its connection must pass first, if there is one.
        begun: The request itself, if the calling thread has sent it already; the first exchange takes it.
    """

    context: Headers = ()
    answer_by: float | None = None
    repeatable: bool = True
    check: Check | None = None
    begun: Begun | None = None


DEFAULTS: Final = ExchangeOptions()
"""The options of a request that may be repeated, has no deadline of its own and needs no check."""
