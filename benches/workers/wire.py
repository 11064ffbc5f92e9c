"""The bytes that texts become on the wire, for the contenders that are handed them ready-made."""

import json
from uuid import uuid4

from casdk.wire import jina_pb2
from content import texts
from loop import Case


def request(batch: list[str]) -> jina_pb2.DataRequestProto:
    message = jina_pb2.DataRequestProto()
    message.header.request_id = uuid4().hex
    message.header.exec_endpoint = "/encode"
    message.parameters["drop_image_content"] = True
    docs = message.data.docs.docs
    for text in batch:
        docs.add(id=uuid4().hex, text=text)
    return message


def batches(case: Case) -> list[list[str]]:
    sent, size = texts(case["n"]), case["batch"]
    return [sent[start : start + size] for start in range(0, len(sent), size)]


def messages(case: Case, codec: str) -> list[bytes]:
    made = [request(batch) for batch in batches(case)]
    if codec == "proto":
        return [message.SerializeToString() for message in made]
    return [
        json.dumps(
            {
                "header": {"request_id": message.header.request_id, "exec_endpoint": "/encode"},
                "parameters": {"drop_image_content": True},
                "data": [{"id": doc.id, "text": doc.text} for doc in message.data.docs.docs],
                "exec_endpoint": "/encode",
            }
        ).encode()
        for message in made
    ]
