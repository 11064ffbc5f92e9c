"""The versions that the embedded server reports."""

import platform
from importlib.metadata import version

from casdk.server.status import info


def test_versions_and_nothing_of_the_environment(monkeypatch):
    monkeypatch.setenv("CLIP_AUTH_TOKEN", "s3cret")
    said = info()
    assert said["envs"] == {}
    assert "s3cret" not in str(said)
    assert said["jina"]["server"] == "casdk"
    assert said["jina"]["python"] == platform.python_version()
    assert said["jina"]["numpy"] == version("numpy")
