"""Nested messages of any depth, which google's protobuf cannot write: its limit is 100 levels."""

from __future__ import annotations

import functools
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

__all__ = ["wrap"]


def wrap(kind: type[Message], field: str, content: bytes) -> bytes:
    """Return a message whose only field is another message, which is serialised already.

    Args:
        kind: Class of the message.
        field: Name of a field that holds a message, or a list of them.
        content: The serialised message in that field.
    """
    layer = _layer(kind.DESCRIPTOR.fields_by_name[field].number)
    return bytes(layer(content=content).SerializeToString())


@functools.cache
def _layer(number: int) -> Any:
    """Return the class of a message with bytes in the field of this number: they look like a message on the wire."""
    # proto2, since proto3 would not write an empty field.
    file = descriptor_pb2.FileDescriptorProto(name=f"casdk/layer_{number}.proto", syntax="proto2")
    file.message_type.add(name=f"Layer{number}").field.add(
        name="content",
        number=number,
        type=descriptor_pb2.FieldDescriptorProto.TYPE_BYTES,
        label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"Layer{number}"))
