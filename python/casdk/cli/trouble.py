"""What the steps of the doctor yield, a `Finding`, and raise, a `TroubleError`."""

from __future__ import annotations

import msgspec

from casdk.cli.exits import Exit, for_command_line

__all__ = ["Finding", "TroubleError"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one step.

    Attributes:
        step: ``address``, ``dns``, ``tcp``, ``proxy``, ``tls``, ``protocol``, ``auth``, ``dry run`` or ``encode``;
            with several servers also ``space``.
        ok: Whether the step succeeded; ``None`` if the server has no answer to it.
        detail: What was observed.
        cure: What to do, if the step failed.
        exit: The exit code of this result.
    """

    step: str
    ok: bool | None
    detail: str
    cure: str = ""
    exit: Exit = Exit.OK


class TroubleError(Exception):
    """A step failed.

    Args:
        detail: What was observed.
        cure: What to do. It may name options of Python, which are replaced by those of the command line.
        exit: The exit code for this failure.
        step: The step that it belongs to, if that is not the current one.
    """

    def __init__(self, detail: str, cure: str, *, exit: Exit = Exit.UNREACHABLE, step: str = "") -> None:
        super().__init__(detail, cure)
        self.detail: str = for_command_line(" ".join(detail.split()))
        self.cure: str = for_command_line(cure)
        self.exit = exit
        self.step = step

    def finding(self, step: str) -> Finding:
        """Return the finding of the step that failed."""
        return Finding(step=self.step or step, ok=False, detail=self.detail, cure=self.cure, exit=self.exit)
