"""The completion scripts: bash completes with its script, and those of the other shells are written."""

import os
import subprocess
from pathlib import Path

import pytest
from casdk.cli.commands import app
from casdk.cli.completion import script_of


def completed(script, folder, *words):
    """What bash offers for the last word of a command line."""
    program = f"""
    {script}
    COMP_WORDS=({" ".join(f"'{word}'" for word in words)}); COMP_CWORD={len(words) - 1}; _casdk
    printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    run = subprocess.run(["bash", "-c", program], cwd=folder, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return set(run.stdout.split())


def test_bash_completes_commands_options_choices_and_paths(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "phone.png").touch()
    script = script_of(app, "bash")
    assert completed(script, tmp_path, "casdk", "en") == {"encode"}
    assert completed(script, tmp_path, "casdk", "encode", "--er") == {"--errors"}
    assert completed(script, tmp_path, "casdk", "encode", "--errors", "s") == {"skip"}
    for words in (["encode", "grpc://there:1"], ["index", "grpc://there:1", "a.png"], ["rank", "grpc://there:1"]):
        assert completed(script, tmp_path, "casdk", *words, "pho") == {"photos", "phone.png"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_is_printed_or_installed(command, shell, tmp_path, monkeypatch):
    for name in ("ZSH", "ZSH_CUSTOM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ran = command("completion", shell)
    assert (ran.code, ran.err) == (0, "")
    assert "batch-size" in ran.out
    assert not list(tmp_path.iterdir())
    ran = command("completion", shell, "--install")
    path = Path(ran.out.partition(" is written; ")[0])
    assert "batch-size" in path.read_text()
    assert path.is_relative_to(tmp_path)


def test_an_unknown_shell(command, monkeypatch):
    assert command("completion", "tcsh").code == 2
    for name in ("ZSH_VERSION", "BASH_VERSION", "FISH_VERSION", "SHELL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", os.devnull)
    ran = command("completion")
    assert ran.code in (0, 2)
