"""The package `casdk.testing`: its public names, and the error if its libraries are missing."""

import subprocess
import sys

import casdk.testing
import casdk.testing.faults
import pytest


def test_each_name_that_it_publishes_is_there():
    assert sorted(casdk.testing.__all__) == sorted(set(casdk.testing.__all__))
    assert all(hasattr(casdk.testing, name) for name in casdk.testing.__all__)
    faults = {
        name
        for name in casdk.testing.__all__
        if isinstance(getattr(casdk.testing, name), type)
        and issubclass(getattr(casdk.testing, name), casdk.testing.Fault)
    }
    assert faults - {"Fault"} == set(casdk.testing.faults.__all__)


@pytest.mark.parametrize("library", ["cryptography", "google.protobuf", "h2", "h11"])
def test_what_is_missing_is_named_with_its_extra(library):
    script = f"import sys\nsys.modules[{library!r}] = None\nimport casdk.testing"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'pip install "casdk[testing]"' in done.stderr.splitlines()[-1]
