"""Messages in messages are written and read at any depth."""

import pytest
from casdk.wire.docarray_pb2 import DocumentArrayProto, DocumentProto
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.layers import wrap
from google.protobuf.message import DecodeError


def test_a_wrapped_message_stands_in_its_field():
    content = DocumentArrayProto(docs=[DocumentProto(text="a")]).SerializeToString()
    data = wrap(DataRequestProto.DataContentProto, "docs", content)
    request = DataRequestProto.FromString(wrap(DataRequestProto, "data", data))
    assert [document.text for document in request.data.docs.docs] == ["a"]


def test_there_may_be_more_levels_than_protobuf_reads():
    nest = b""
    for _ in range(90):
        nest = wrap(DocumentProto, "chunks", nest)
    DocumentProto.FromString(nest)
    for _ in range(20):
        nest = wrap(DocumentProto, "chunks", nest)
    with pytest.raises(DecodeError):
        DocumentProto.FromString(nest)
