"""CPU and throughput of images of 100 kB: by path, as data URIs, as Documents with a blob."""

import pytest
from arena import Arena, Rival

CLAIMS = {"paths": "images by path", "data_uris": "data URIs", "blobs": "Documents with a blob"}


@pytest.mark.parametrize("content", CLAIMS)
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_images(benchmark, arena: Arena, pictures: str, scheme: str, content: str) -> None:
    case = {"verb": "encode", "content": content, "n": 128, "batch": 32, "images": pictures}
    arena.compete(benchmark, f"{CLAIMS[content]}, batch 32", scheme, case, [Rival("original", "original")])
