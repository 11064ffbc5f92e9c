"""What the tests of crops share: a server that prepares images as clip_server does, and a client of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from casdk import Client
from casdk.server import Served, serve

sys.path.insert(0, str(Path(__file__).parent))  # where the tests find clip_models

from clip_models import jpegs, write_models

SIDE = 224


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The embedded server with a model of 224 x 224 pixels."""
    models = write_models(tmp_path_factory.mktemp("models"), SIDE)
    with serve(encoder=f"onnx:{models}", schemes=["grpc", "http"]) as clip:
        yield clip


@pytest.fixture(scope="module")
def client(clip: Served) -> Iterator[Client]:
    """A client of it, which shows once how it prepares images."""
    with Client(clip.address("grpc")) as client:
        yield client


@pytest.fixture(scope="session")
def jpeg() -> bytes:
    """A photo."""
    return jpegs()[0]
