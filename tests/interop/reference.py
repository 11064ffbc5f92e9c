"""What jina, docarray, clip_client and clip_server themselves do: asked over stdin, answered on stdout.

Runs inside the reference environment. One line in, ``{"ask": name, ...}``, one line out, ``{"answer":
value}`` or ``{"error": [class, message]}``; see `exchange`. Documents travel as dictionaries of docarray's
field names.
"""

import os
import sys
import tempfile
from pathlib import Path

import numpy as np
from docarray import Document, DocumentArray
from exchange import dumps, loads
from google.protobuf.json_format import MessageToDict

FIELDS = (
    *("id", "text", "blob", "tensor", "embedding", "uri", "mime_type"),
    *("modality", "weight", "offset", "location", "tags"),
)


def document(fields):
    """Build docarray's Document, nested ones included."""
    nested = {"matches", "chunks", "scores", "evaluations"}
    made = Document({k: v for k, v in fields.items() if k not in nested})
    for name in ("scores", "evaluations"):
        for label, score in fields.get(name, {}).items():
            for key, value in score.items():
                setattr(getattr(made, name)[label], key, value)
    for name in ("matches", "chunks"):
        if name in fields:
            setattr(made, name, DocumentArray(map(document, fields[name])))
    return made


def fields(made):
    """Return what is set of docarray's Document, nested ones included."""
    found = {name: getattr(made, name) for name in FIELDS if name in made.non_empty_fields}
    if made.scores:
        found["scores"] = {k: {"value": s.value, "op_name": s.op_name} for k, s in made.scores.items()}
    for name in ("matches", "chunks"):
        if getattr(made, name):
            found[name] = list(map(fields, getattr(made, name)))
    return found


def original(url, verb, content, **options):
    """Call the original client; strings are strings, dictionaries Documents."""
    from clip_client import Client

    client = Client(url)
    if verb == "profile":
        return client.profile(*content)
    result = getattr(client, verb)([c if isinstance(c, str) else document(c) for c in content], **options)
    return result if isinstance(result, np.ndarray) else list(map(fields, result))


def request(verb, content, parameters):
    """Return the bytes that the original client sends for one batch."""
    from clip_client import Client
    from jina.clients.request import request_generator

    client = Client("grpc://127.0.0.1:1")
    documents = [c if isinstance(c, str) else document(c) for c in content]
    prepared = client._iter_rank_docs(documents) if verb == "rank" else client._iter_doc(documents)
    (made,) = request_generator(f"/{verb}", prepared, request_size=0, parameters=parameters)
    return made.SerializeToString()


def tree(message):
    """Return what jina reads in these bytes: protobuf's fields by name, and docarray's Documents."""
    from jina.types.request.data import DataRequest

    read = DataRequest(message)
    return {
        "proto": MessageToDict(read.proto_with_data, preserving_proto_field_name=True),
        "documents": list(map(fields, read.docs)),
    }


def http_request(body):
    """Return the bytes of the request that jina's http gateway makes of a body, for its executors."""
    from jina.clients.request import request_generator
    from jina.enums import DataInputType
    from jina.serve.runtimes.gateway.models import JinaEndpointRequestModel

    given = JinaEndpointRequestModel.parse_raw(body).dict()
    (made,) = request_generator(**{**given, "data_type": DataInputType.DICT})
    return made.SerializeToString()


def reply(content, parameters, request_id, routes, error=None):
    """Return a reply as jina's gateway serialises it: its bytes, and the JSON of its http gateway."""
    from jina.types.request.data import DataRequest

    made = DataRequest()
    made.header.request_id = request_id
    made.header.exec_endpoint = "/encode"
    made.parameters = parameters
    made.data.docs = DocumentArray(map(document, content))
    for name, start, end in routes:
        route = made.routes.add()
        route.executor = name
        route.start_time.FromNanoseconds(start)
        route.end_time.FromNanoseconds(end)
    if error is not None:
        try:
            raise ValueError(*error)
        except ValueError as raised:
            made.add_exception(raised)
    return {"proto": made.SerializeToString(), "json": _http_reply(made)}


def _http_reply(made):
    from fastapi.encoders import jsonable_encoder
    from fastapi.responses import JSONResponse
    from jina.serve.runtimes.gateway.models import JinaResponseModel

    return JSONResponse(jsonable_encoder(JinaResponseModel(**made.to_dict()), by_alias=True)).body


def models(directory):
    """Write the tiny ONNX models, and return where."""
    import onnx_models

    return str(onnx_models.write(Path(directory)))


_encoder = None


def clip(verb, content):
    """Let clip_server's ONNX executor itself encode or rank, without a wire."""
    import asyncio

    from clip_server.executors.clip_onnx import CLIPEncoder

    global _encoder
    if _encoder is None:
        with tempfile.TemporaryDirectory() as directory:
            _encoder = CLIPEncoder(model_path=models(directory), device="cpu")
    documents = DocumentArray(map(document, content))
    work = _encoder.rank if verb == "rank" else _encoder.encode
    asyncio.run(work(documents, parameters={}))
    return list(map(fields, documents)) if verb == "rank" else documents.embeddings


def differ_for_torch(one, other, side):
    """Return whether clip_torch makes other numbers of one image than of another, before its model gets them."""
    import torch
    from clip_server.executors.helper import preproc_image
    from clip_server.model import clip

    prepared = []
    for data in (one, other):
        batch = DocumentArray([Document(blob=data)])
        _, made = preproc_image(batch, preprocess_fn=clip._transform_blob(side), device="cpu", return_np=False)
        prepared.append(made["pixel_values"])
    return not torch.equal(*prepared)


ASKED = {f.__name__: f for f in (original, request, tree, http_request, reply, models, clip, differ_for_torch)}


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        asked = loads(line)
        try:
            said = {"answer": ASKED[asked.pop("ask")](**asked)}
        except Exception as error:
            said = {"error": [type(error).__name__, str(error)]}
        answers.write(dumps(said) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
