"""``casdk completion``: scripts that let a shell complete commands, options and paths."""

from __future__ import annotations

from typing import Literal, TypeAlias

from cyclopts import App
from cyclopts.completion.detect import ShellDetectionError, detect_shell

from casdk.errors import ConfigError

__all__ = ["Shell", "install_script", "script_of"]

Shell: TypeAlias = Literal["bash", "zsh", "fish"]
NEXT_STEPS = {
    "bash": "it is read by ~/.bashrc: start a new shell, or run: source ~/.bashrc",
    "zsh": "its directory is in the fpath of ~/.zshrc, which has to call compinit: start a new shell",
    "fish": "start a new shell",
}


def script_of(app: App, shell: Shell | None) -> str:
    """Return the script for a shell.

    Args:
        app: The commands.
        shell: The shell; ``None`` for the one that runs this process.

    Raises:
        ConfigError: The running shell cannot be found out, or has no completion.
    """
    return app.generate_completion(shell=shell or _running_shell())


def install_script(app: App, shell: Shell | None) -> str:
    """Write the script to where a shell looks for it; return what was done, and what the user has to do next.

    Raises:
        ConfigError: The running shell cannot be found out, or has no completion.
    """
    shell = shell or _running_shell()
    path = app.install_completion(shell=shell)
    return f"{path} is written; {NEXT_STEPS[shell]}\n"


def _running_shell() -> Shell:
    try:
        shell = detect_shell()
    except ShellDetectionError:
        shell = "powershell"
    if shell == "powershell":
        raise ConfigError("which shell? name it: casdk completion bash, zsh or fish")
    return shell
