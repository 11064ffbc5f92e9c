"""The package itself: its import, and ``python -m casdk``."""

import logging
import subprocess
import sys

import casdk
import pytest
from casdk import _rust

IMPORT_AS_IF = """
import sys, types, warnings
from importlib import import_module, machinery, util
found = util.find_spec("casdk")
real = util.spec_from_file_location("casdk._rust", sys.argv[1])
extension = util.module_from_spec(real)
real.loader.exec_module(extension)
extension.DEBUG = sys.argv[2] == "True"
sys.modules["casdk._rust"] = extension
import casdk
print(casdk.__version__)
"""


@pytest.mark.parametrize("debug", [True, False])
def test_a_debug_build_says_that_it_is_slow(debug):
    command = [sys.executable, "-W", "always", "-c", IMPORT_AS_IF, _rust.__file__, str(debug)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == f"{casdk.__version__}\n"
    assert ("RuntimeWarning: casdk was built without optimisation" in done.stderr) is debug
    assert bool(done.stderr) is debug


def test_its_log_is_quiet_until_the_program_says_otherwise():
    handlers = logging.getLogger("casdk").handlers
    assert any(type(handler) is logging.NullHandler for handler in handlers)
    script = "import casdk, logging; logging.getLogger('casdk.calls').warning('said')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


def test_the_module_is_the_command():
    done = subprocess.run([sys.executable, "-m", "casdk", "--version"], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, f"{casdk.__version__}\n")
    wrong = subprocess.run([sys.executable, "-m", "casdk", "nothing"], capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert "Traceback" not in wrong.stderr
