"""What the suites share, each in its own environment: a client of the server that `test_ecosystem.py` started."""

import os
from pathlib import Path

import pytest
from casdk import Client

TEXTS = ["she smiled", "with pain", "a control room", "cat.png", "ünïcödé 🦀"]


@pytest.fixture
def client():
    with Client(os.environ["CASDK_SERVER"]) as client:
        yield client


@pytest.fixture
def texts():
    """Sentences, one of which looks like a file."""
    return TEXTS


@pytest.fixture
def picture():
    """An image file."""
    return Path(os.environ["CASDK_PICTURE"])
