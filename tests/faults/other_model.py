"""A server that holds another model: what the tests of vector spaces, pools and bulk runs share."""

from __future__ import annotations

from dataclasses import dataclass

from casdk.testing import Fault, embed
from casdk.wire.jina_pb2 import DataRequestProto
from casdk.wire.values import put_array


@dataclass(frozen=True, slots=True)
class OtherModel(Fault):
    """Rows in another space, of this width."""

    width: int

    def change(self, reply: DataRequestProto, exchange: object) -> None:
        for document in reply.data.docs.docs:
            put_array(document.embedding, embed(b"other" + (document.text.encode() or document.blob), self.width))
