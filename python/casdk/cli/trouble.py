"""What the doctor finds: a step that went well, or the first thing that is wrong."""

from __future__ import annotations

import msgspec

from casdk.cli.exits import Exit, for_command_line

__all__ = ["Finding", "TroubleError"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """How one step went.

    Attributes:
        step: ``address``, ``dns``, ``tcp``, ``proxy``, ``tls``, ``protocol``, ``auth``, ``dry run`` or ``encode``;
            of several servers also ``space``.
        ok: ``None`` where the server cannot be asked.
        detail: What was seen.
        cure: What to do, where it did not go well.
        exit: The exit code it stands for.
    """

    step: str
    ok: bool | None
    detail: str
    cure: str = ""
    exit: Exit = Exit.OK


class TroubleError(Exception):
    """A step did not go well.

    Args:
        detail: What was seen.
        cure: What to do; the options it names may be those of a program.
        exit: The exit code it stands for.
        step: The step that it belongs to, if that is not the one under way.
    """

    def __init__(self, detail: str, cure: str, *, exit: Exit = Exit.UNREACHABLE, step: str = "") -> None:
        super().__init__(detail, cure)
        self.detail: str = for_command_line(" ".join(detail.split()))
        self.cure: str = for_command_line(cure)
        self.exit = exit
        self.step = step

    def finding(self, step: str) -> Finding:
        """Return it as what was found at a step."""
        return Finding(step=self.step or step, ok=False, detail=self.detail, cure=self.cure, exit=self.exit)
