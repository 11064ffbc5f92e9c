"""Embeddings over HTTP: one client for all requests, which merges those that come at the same time.

CLIP_SERVER=grpc://host:port uvicorn fastapi_service:app --app-dir examples      needs pip install casdk fastapi uvicorn

curl localhost:8000/texts -H 'content-type: application/json' -d '{"texts": ["an apple"]}'
curl localhost:8000/image --data-binary @apple.png
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from casdk import CasdkError, Client, DeadlineError, Image, InputError, OverloadedError, Text, TransportError
from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field


class State(TypedDict):
    """The objects that live as long as the service."""

    client: Client


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[State]:
    """Make the client before the first request, close it after the last."""
    server = os.environ.get("CLIP_SERVER", "grpc://127.0.0.1:51000")
    async with Client(server, coalesce=True, timeout=10, local_files=False, fetch_urls=False) as client:
        yield {"client": client}


app = FastAPI(title="Embeddings", lifespan=lifespan)


def client_of(request: Request) -> Client:
    """Return the service's client."""
    return request.state.client


class Texts(BaseModel):
    """What to encode."""

    texts: list[str] = Field(min_length=1, max_length=1000)


@app.post("/texts")
async def texts(body: Texts, client: Client = Depends(client_of)) -> list[list[float]]:  # noqa: B008
    """Encode sentences. `Text` keeps a stranger's ``/etc/passwd`` a sentence: a plain str would be a path."""
    rows = await client.aencode([Text(text) for text in body.texts])
    return rows.tolist()


@app.post("/image")
async def image(request: Request, client: Client = Depends(client_of)) -> list[float]:  # noqa: B008
    """Encode the image file that is the body."""
    [row] = await client.aencode([Image(await request.body())])
    return row.tolist()


@app.exception_handler(CasdkError)
async def answer(request: Request, error: CasdkError) -> JSONResponse:
    """Answer an error with the status of its cause: the caller's content, the time limit or the CLIP server."""
    match error:
        case InputError():
            status = 422
        case DeadlineError():
            status = 504
        case OverloadedError() | TransportError():
            status = 503
        case _:
            status = 502
    return JSONResponse({"detail": str(error)}, status)
