"""The types of every verb; mypy and pyright check this file in `make lint`, and nothing runs it."""

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_type

import numpy as np
from casdk import (
    CasdkError,
    Client,
    Document,
    DocumentArray,
    EncodeResult,
    Image,
    Pool,
    Profile,
    Response,
    Server,
    Text,
    bulk,
)
from casdk.bulk import BulkResult
from numpy.typing import NDArray

Rows = NDArray[np.float32]

client = Client("grpc://127.0.0.1:51000")


def done(response: Response) -> None: ...


def texts() -> Iterator[str]:
    yield "a"


async def later() -> AsyncIterator[str]:
    yield "a"


def documents() -> Iterator[Document]:
    yield Document(text="a")


def encode(pixels: NDArray[np.uint8], names: list[str], mixture: list[str | Document]) -> None:
    assert_type(client.encode(["a", "b.png"]), Rows)
    assert_type(client.encode(texts(), batch_size=8, prefetch=4), Rows)
    assert_type(client.encode(texts(), batch_size="auto"), Rows)
    assert_type(client.encode(texts(), batch_size=None), Rows)
    client.encode(texts(), batch_size="automatic")  # type: ignore[call-overload]
    assert_type(client.encode(("a", b"png", Path("b.png"), pixels, Text("c"), Image(b"png"))), Rows)
    assert_type(client.encode(names, dtype="float16", dedupe=True), Rows)
    assert_type(client.encode(names, errors="skip"), Rows)
    assert_type(client.encode([Document(text="a")]), DocumentArray)
    assert_type(client.encode(documents()), DocumentArray)
    assert_type(client.encode(DocumentArray([Document(text="a")])), DocumentArray)
    assert_type(client.encode(mixture), Rows | DocumentArray)
    assert_type(client.encode(names, errors="return"), EncodeResult)
    assert_type(client.encode(documents(), errors="return"), EncodeResult)
    assert_type(client.encode(names, return_responses=True), list[Response])
    assert_type(client.encode(names, on_done=done), None)
    assert_type(client.encode(names, on_done=done, on_always=done, on_error=done), None)
    assert_type(client.encode(names, on_always=done), None)
    assert_type(client.encode(names, on_error=done), Rows)


def stopped(names: list[str]) -> None:
    assert_type(client.encode(names, errors="return").stopped, CasdkError | None)
    try:
        client.index(names)
    except CasdkError as error:
        assert_type(error.partial, NDArray[Any] | None)
        assert_type(error.documents, DocumentArray | None)
        assert_type(error.responses, list[Response] | None)
        assert_type(error.start, int)
        assert_type(error.done, int)
        assert_type(error.total, int | None)
        assert_type(error.attempts, int)
        assert_type(error.server, str)
        assert_type(error.unconfirmed, Sequence[int] | None)


async def aencode(names: list[str], mixture: list[str | Document]) -> None:
    assert_type(await client.aencode(["a", "b.png"]), Rows)
    assert_type(await client.aencode(later()), Rows)
    assert_type(await client.aencode(documents()), DocumentArray)
    assert_type(await client.aencode(mixture), Rows | DocumentArray)
    assert_type(await client.aencode(names, errors="return"), EncodeResult)
    assert_type(await client.aencode(names, return_responses=True), list[Response])
    assert_type(await client.aencode(names, on_done=done), None)
    assert_type(await client.aencode(names, on_always=done), None)


def rank() -> None:
    assert_type(client.rank(documents()), DocumentArray)
    assert_type(client.rank(documents(), source="chunks", batch_size=1), DocumentArray)
    assert_type(client.rank(documents(), return_responses=True), list[Response])
    assert_type(client.rank(documents(), on_done=done), None)
    assert_type(client.rank(documents(), on_always=done), None)


async def arank() -> None:
    assert_type(await client.arank(documents()), DocumentArray)
    assert_type(await client.arank(documents(), return_responses=True), list[Response])
    assert_type(await client.arank(documents(), on_done=done), None)
    assert_type(await client.arank(documents(), on_always=done), None)


def index(mixture: list[str | Document]) -> None:
    assert_type(client.index(["a"]), DocumentArray)
    assert_type(client.index(["a"], batch_size="auto"), DocumentArray)
    assert_type(client.index(mixture, idempotent_index=True), DocumentArray)
    assert_type(client.index(documents(), return_responses=True), list[Response])
    assert_type(client.index(["a"], on_done=done), None)
    assert_type(client.index(["a"], on_always=done), None)


async def aindex() -> None:
    assert_type(await client.aindex(later()), DocumentArray)
    assert_type(await client.aindex(documents(), return_responses=True), list[Response])
    assert_type(await client.aindex(["a"], on_done=done), None)
    assert_type(await client.aindex(["a"], on_always=done), None)


def search(mixture: list[str | Document]) -> None:
    assert_type(client.search(["a"], limit=3), DocumentArray)
    assert_type(client.search(mixture), DocumentArray)
    assert_type(client.search(["a"], return_responses=True), list[Response])
    assert_type(client.search(["a"], on_done=done), None)
    assert_type(client.search(["a"], on_always=done), None)


async def asearch() -> None:
    assert_type(await client.asearch(later(), limit=3), DocumentArray)
    assert_type(await client.asearch(["a"], return_responses=True), list[Response])
    assert_type(await client.asearch(["a"], on_done=done), None)
    assert_type(await client.asearch(["a"], on_always=done), None)


async def space() -> None:
    assert_type(client.space(), str)
    assert_type(await client.aspace("ViT-L-14::openai", timeout=5, patience=60), str)
    Client("grpc://127.0.0.1:51000", expect_space=client.space())


async def profile() -> None:
    assert_type(client.profile(), Profile)
    assert_type(client.profile("a", quiet=True)["Roundtrip"], float)
    assert_type(await client.aprofile(Document(text="a")), Profile)
    several = Client(["grpc://127.0.0.1:51000", Server("http://127.0.0.1:51001")], timeout=5)
    assert_type(several.profile(), dict[str, Profile])
    assert_type(await several.aprofile("a", quiet=True), dict[str, Profile])
    assert_type(Client("grpc://clip:51000", pool=Pool(resolve=True)).profile(), dict[str, Profile])
    with Client("grpc://127.0.0.1:51000", "token", retry=None) as single:
        assert_type(single.profile(), Profile)


def measure(either: Client) -> None:
    assert_type(either.profile(), Profile | Any)


measure(client)
measure(Client(["grpc://127.0.0.1:51000"]))


async def streams(mixture: list[str | Document]) -> None:
    assert_type(client.encode_to("rows.npy", texts(), shard_rows=10), BulkResult)
    assert_type(client.encode_to("rows.npy", texts()).space, str | None)
    assert_type(client.encode_to("rows.npy", texts(), batch_size="auto").batch_size, int)
    assert_type(client.encode_to(Path("rows"), [("a", "b")]), BulkResult)
    assert_type(client.encode_to("rows", bulk.files("photos/*.jpg"), normalize=True), BulkResult)
    assert_type(bulk.parquet("data/*.parquet", columns="image", name="id"), bulk.Named)
    assert_type(bulk.tars("shards/{000..127}.tar", columns="json.caption"), bulk.Named)
    assert_type(bulk.tars("shards/{000..127}.tar", columns=("jpg", "txt")), bulk.Named)
    client.encode_to("rows", bulk.files("photos/*.jpg"), layout="clip-retrieval")
    client.encode_to("rows", texts(), layout="other")  # type: ignore[arg-type]
    assert_type(await client.aencode_to("rows", later(), errors="raise"), BulkResult)
    client.encode_to("rows", texts(), out=None)  # type: ignore[call-arg]
    assert_type(client.stream(texts()), Generator[Rows, None, None])
    assert_type(client.stream(texts(), batch_size="auto"), Generator[Rows, None, None])
    assert_type(client.stream(texts(), errors="skip", dtype="float16"), Generator[Rows, None, None])
    assert_type(client.stream(texts(), errors="return"), Generator[EncodeResult, None, None])
    assert_type(client.stream(documents()), Generator[DocumentArray, None, None])
    assert_type(client.stream(mixture), Generator[Rows | DocumentArray, None, None])
    client.stream(texts(), out=None)  # type: ignore[call-overload]
    assert_type(client.astream(later()), AsyncGenerator[Rows, None])
    assert_type(client.astream(later(), errors="return"), AsyncGenerator[EncodeResult, None])
    assert_type(client.astream(documents()), AsyncGenerator[DocumentArray, None])
    assert_type(client.astream(mixture), AsyncGenerator[Rows | DocumentArray, None])


async def contexts() -> None:
    with Client("http://127.0.0.1:51000") as one:
        assert_type(one, Client[Profile])
    async with Client("ws://127.0.0.1:51000") as other:
        assert_type(other, Client[Profile])


def pool() -> None:
    assert_type(Pool(hedge=0.05).hedge, float)


def refused(names: list[str]) -> None:
    client.encode(names, batchsize=8)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    client.encode(names, errors="ignore")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    client.encode(later())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    client.search(later())  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    client.encode(7)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    client.rank(names)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]
    client.search(names, limit="ten")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    Client("grpc://127.0.0.1:1", unknown=True)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
