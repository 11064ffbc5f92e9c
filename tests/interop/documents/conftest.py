"""What the suites of documents share: a client of the server that `run` was given, and what it must answer."""

import asyncio
import json
import os
from uuid import uuid4

import numpy as np
import pytest
from deterministic import ranking, rows
from PIL import Image


@pytest.fixture(params=["grpc", "http", "websocket"])
def url(request):
    return json.loads(os.environ["SERVER"])[request.param]


@pytest.fixture(params=["sync", "async"])
def call(request):
    """Calls a verb of any client, or its async twin from a loop of its own."""

    def run(client, verb, *arguments, **options):
        if request.param == "sync":
            return getattr(client, verb)(*arguments, **options)
        return asyncio.run(getattr(client, f"a{verb}")(*arguments, **options))

    return run


@pytest.fixture
def pixels():
    """Unlike those of any other test: the server's index is one for all."""
    return np.random.default_rng().integers(0, 256, (8, 9, 3), np.uint8)


@pytest.fixture
def png(pixels, tmp_path):
    """Path of an image."""
    path = tmp_path / "noise.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def contents(png, pixels):
    """The four contents that documents are made of."""
    return {"text": f"über alles {uuid4()}", "uri": str(png), "blob": png.read_bytes(), "tensor": pixels}


@pytest.fixture
def expected(contents, png):
    """The embeddings ``[4, 512]`` that the server makes of `contents`."""
    image = png.read_bytes()
    return rows([contents["text"].encode(), image, image, contents["tensor"].tobytes()])


@pytest.fixture
def check_shared(client, call, expected):
    """Checks that each query has scores of its own, also one that stands there twice.

    The queries are places 0 and 2 of `expected`, the candidates of both 1 and 3.
    """

    def check(text, blob, candidates, scores_of):
        call(client, "rank", [text, blob, blob])
        assert {id(match) for match in text.matches} == {id(candidate) for candidate in candidates}
        assert not {id(match) for match in blob.matches} & {id(candidate) for candidate in candidates}
        for query, at in ((text, 0), (blob, 2)):
            _, probabilities, cosines = ranking(expected[[at, 1, 3]])
            for name, wanted in (("clip_score", probabilities), ("clip_score_cosine", cosines)):
                np.testing.assert_allclose(scores_of(query.matches, name), wanted, rtol=0, atol=1e-6)

    return check
