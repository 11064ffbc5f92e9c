"""The generated protobuf modules are those of the proto files."""

from pathlib import Path
from runpy import run_path

import pytest
from casdk.wire import docarray_pb2, jina_pb2

GENERATOR = Path(__file__).parents[2] / "protos" / "generate.py"


def test_generated_modules_are_those_of_the_proto_files(tmp_path):
    pytest.importorskip("grpc_tools", reason="grpcio-tools comes with the lint group")
    generator = run_path(str(GENERATOR))
    generator["generate"](tmp_path)

    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in generator["WIRE"].glob("*_pb2.py*")}
    assert sorted(written) == ["docarray_pb2.py", "docarray_pb2.pyi", "jina_pb2.py", "jina_pb2.pyi"]
    assert written == committed


def test_a_request_holds_documents_of_the_other_module():
    request = jina_pb2.DataRequestProto()
    request.data.docs.docs.append(docarray_pb2.DocumentProto(text="a"))
    assert request.SerializeToString() == bytes.fromhex("2207 0a05 0a03 2201 61")
