"""Embeddings over HTTP from Flask's threads, which share one client.

CLIP_SERVER=grpc://host:port flask --app examples/flask_service.py run --port 8000      needs pip install casdk flask

curl localhost:8000/texts -H 'content-type: application/json' -d '{"texts": ["an apple"]}'
"""

import atexit
import os
from typing import Any

from casdk import Client, DeadlineError, InputError, OverloadedError, Text, TransportError
from flask import Flask, Response, jsonify, request

client = Client(
    os.environ.get("CLIP_SERVER", "grpc://127.0.0.1:51000"),
    coalesce=True,
    timeout=10,
    local_files=False,
    fetch_urls=False,
)
atexit.register(client.close)
app = Flask(__name__)


@app.post("/texts")
def texts() -> Response:
    """Encode sentences."""
    rows = client.encode([Text(text) for text in request.get_json()["texts"]])
    return jsonify(rows.tolist())


@app.post("/rank")
def rank() -> Response:
    """Order candidates by their likeness to a query: one matrix of rows, one product."""
    asked = request.get_json()
    query, *candidates = client.encode([Text(asked["query"]), *map(Text, asked["candidates"])])
    scored = [(float(row @ query), text) for row, text in zip(candidates, asked["candidates"], strict=True)]
    return jsonify([{"text": text, "score": score} for score, text in sorted(scored, reverse=True)])


@app.errorhandler(InputError)
def refuse(error: InputError) -> tuple[dict[str, Any], int]:
    """Answer with what is wrong with the caller's content."""
    return {"detail": str(error)}, 422


@app.errorhandler(TransportError)
@app.errorhandler(OverloadedError)
@app.errorhandler(DeadlineError)
def apologise(error: Exception) -> tuple[dict[str, Any], int]:
    """Answer that the CLIP server is away, or too busy."""
    return {"detail": str(error)}, 503
