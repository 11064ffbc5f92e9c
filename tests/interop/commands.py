"""Runs the commands that build environments, and shows the output of one that failed."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

__all__ = ["CommandError", "run"]

SHOWN_LINES = 25


class CommandError(Exception):
    """A command failed.

    Attributes:
        said: The end of what it printed.
    """

    def __init__(self, command: tuple[str, ...], status: int, said: str) -> None:
        self.said = "\n".join(said.strip().splitlines()[-SHOWN_LINES:])
        super().__init__(f"{' '.join(command)[:200]} ended with status {status}:\n{self.said}")

    @property
    def last_words(self) -> str:
        """Its last line, for a sentence."""
        return self.said.rpartition("\n")[2] or str(self)


def run(*command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """Run a command and return what it printed to stdout.

    Raises:
        CommandError: It failed.
    """
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=cwd, env=env)
    if done.returncode:
        raise CommandError(command, done.returncode, done.stdout + done.stderr)
    return done.stdout
