"""What one writes by hand with grpcio and protobuf in an afternoon: ``python stub.py ADDRESS CA``."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from casdk.wire import jina_pb2
from loop import Call, Case, serve
from wire import batches, request

ADDRESS, CA = sys.argv[1:]
SCHEME, TARGET = ADDRESS.split("://")
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


def open_channel() -> grpc.Channel:
    if SCHEME == "grpcs":
        return grpc.secure_channel(TARGET, grpc.ssl_channel_credentials(Path(CA).read_bytes()), OPTIONS)
    return grpc.insecure_channel(TARGET, OPTIONS)


def prepare(case: Case) -> Call:
    channel = open_channel()
    form: dict[str, Any] = {
        "request_serializer": jina_pb2.DataRequestProto.SerializeToString,
        "response_deserializer": jina_pb2.DataRequestProto.FromString,
    }
    stream = channel.stream_stream("/jina.JinaRPC/Call", **form)
    unary = channel.unary_unary("/jina.JinaSingleDataRequestRPC/process_single_data", **form)
    groups, n = batches(case), case["n"]

    def several() -> np.ndarray:
        places: dict[str, int] = {}

        def requests() -> Iterator[jina_pb2.DataRequestProto]:
            start = 0
            for batch in groups:
                message = request(batch)
                places[message.header.request_id] = start
                start += len(batch)
                yield message

        rows = np.empty((n, 512), np.float32)
        for reply in stream(requests()):
            fill(rows, places[reply.header.request_id], reply)
        return rows

    def one() -> np.ndarray:
        rows = np.empty((n, 512), np.float32)
        fill(rows, 0, unary(request(groups[0])))
        return rows

    return one if len(groups) == 1 else several


def fill(rows: np.ndarray, start: int, reply: jina_pb2.DataRequestProto) -> None:
    if reply.header.status.code:
        raise RuntimeError(reply.header.status.description)
    for row, doc in enumerate(reply.data.docs.docs, start):
        rows[row] = np.frombuffer(doc.embedding.dense.buffer, "<f4")


if __name__ == "__main__":
    serve(prepare)
