"""The documents as a package: the one list of their fields, and the names it publishes."""

import ast
import json
from pathlib import Path

import casdk
from casdk._rust import FIELDS
from casdk.documents import Document, DocumentArray, NamedScore
from casdk.documents import summary as _summary
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.json_form import write_reply

PACKAGE = Path(casdk.__file__).parent


def test_every_list_of_fields_has_the_same_ones():
    """Rust's, the model's, the stub's and the summary's; a checker reads the one of `Document.__init__`.

    The wire's JSON form has no list of its own: it has the fields of the protobuf message.
    """
    fields = sorted(Document.__struct_fields__)
    assert sorted(FIELDS) == fields
    assert sorted(_summary.ORDER) == fields
    stub = ast.parse((PACKAGE / "_rust.pyi").read_text())
    [raw] = [node for node in stub.body if isinstance(node, ast.ClassDef) and node.name == "RawDocument"]
    assert sorted(line.target.id for line in raw.body if isinstance(line, ast.AnnAssign)) == fields
    model = ast.parse((PACKAGE / "documents" / "model.py").read_text())
    [init] = [
        node
        for node in ast.walk(model)
        if isinstance(node, ast.FunctionDef) and node.name == "__init__" and len(node.args.kwonlyargs) > 1
    ]
    assert sorted(argument.arg for argument in init.args.kwonlyargs) == fields
    reply = DataRequestProto()
    reply.data.docs.docs.add()
    assert sorted(json.loads(b"".join(write_reply(reply, camel=True)))["data"][0]) == fields


def test_public_names():
    assert casdk.Document is Document
    assert casdk.DocumentArray is DocumentArray
    assert casdk.NamedScore is NamedScore
