"""Runs the suites of `documents/` against each version of docarray, in its own environment."""

import pytest
from documents import run as docarrays


@pytest.mark.timeout(600)
@pytest.mark.parametrize("version", docarrays.SUITES)
def test_docarray(version):
    done = docarrays.run(version)
    assert done.returncode == 0, done.stdout
