"""Frames of a websocket, read by the library whose servers read them."""

from __future__ import annotations

import os
import threading
from itertools import pairwise

import pytest
from casdk._rust import frame_message
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

SIZES = [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 70_000]


def mask_of(frame: bytes) -> bytes:
    """Return the mask of a frame of up to 125 bytes."""
    return frame[2:6]


def test_a_server_reads_what_was_written() -> None:
    messages = [bytes(at % 251 for at in range(size)) for size in SIZES]
    server = ServerProtocol(state=OPEN)
    for message in messages:
        server.receive_data(frame_message(message))
    read = server.events_received()
    assert [(frame.opcode, frame.fin, frame.data) for frame in read] == [
        (Opcode.BINARY, True, message) for message in messages
    ]


def test_no_two_masks_follow_from_each_other() -> None:
    masks: list[bytes] = []

    def draw() -> None:
        masks.extend(mask_of(frame_message(b"")) for _ in range(1000))

    threads = [threading.Thread(target=draw) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Of 2,000 in 2^32, two are the same once in 2,000 runs, eleven never.
    assert len(set(masks)) > 1990
    # Each bit is as often set as not, give or take nine standard deviations; so is each that differs from the last.
    numbers = [int.from_bytes(mask, "big") for mask in masks]
    changes = [one ^ other for one, other in pairwise(numbers)]
    for drawn in (numbers, changes):
        for bit in range(32):
            assert sum(number >> bit & 1 for number in drawn) == pytest.approx(1000, abs=200)


def test_a_forked_child_draws_other_masks() -> None:
    frame_message(b"")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(mask_of(frame_message(b"")) for _ in range(8)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reading, 32) != b"".join(mask_of(frame_message(b"")) for _ in range(8))
    os.close(reading)
    os.close(writing)


def test_only_bytes_are_written() -> None:
    with pytest.raises(TypeError):
        frame_message("text")  # type: ignore[arg-type]
