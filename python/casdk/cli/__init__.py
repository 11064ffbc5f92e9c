"""The ``casdk`` command. Needs ``pip install "casdk[cli]"``; nothing of casdk imports it."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code, one of `casdk.cli.exits.Exit`.

    Args:
        arguments: Words after ``casdk``; those of this process by default.
    """
    try:
        import cryptography  # noqa: F401
        import cyclopts  # noqa: F401
    except ImportError as error:
        print(f'casdk: the command line needs {error.name}: pip install "casdk[cli]"', file=sys.stderr)
        return 2
    from casdk.cli.commands import run

    return run(sys.argv[1:] if arguments is None else arguments)
