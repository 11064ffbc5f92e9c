"""Real jina flows on loopback: one plain and one with TLS, each answering grpc, http and websocket.

    python flows.py {fake,encoder,real,other} WORKDIR [--ports N N N N N N]

Runs inside a reference environment. Prints one line of JSON when every port answers (the six schemes' ports
and the pids of the flows' processes by name), then serves until SIGTERM, or until stdin ends: with who
started it. Everything jina says goes to stderr. ``WORKDIR`` holds ``cert.pem`` and ``key.pem`` of the TLS flow.
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import signal
import socket
import sys
import threading
from pathlib import Path

from jina import Flow

PROTOCOLS = ["grpc", "http", "websocket"]
SCHEMES = ["grpc", "http", "websocket", "grpcs", "https", "websockets"]
WEIGHTS = {"real": 7, "other": 8}
"""What the weights of clip_server's models are drawn from."""
READY_WITHIN = 180_000
"""Milliseconds an executor may take to load."""


def free_ports(count):
    """Return ports that nothing listens on, below those the system gives to outgoing connections."""
    found = []
    for port in random.sample(range(10240, 32768), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
            if len(found) == count:
                break
    return found


def flow(kind, name, ports, work, **tls):
    # TLS is the gateway's alone: given to the Flow it would reach the executors too, which the gateway and
    # jina's own readiness probe then call in plain text, and the flow never becomes ready.
    gateway = Flow(host="127.0.0.1").config_gateway(protocol=PROTOCOLS, port=ports, host="127.0.0.1", **tls)
    if kind not in ("real", "other"):
        import executors

        uses = executors.Deterministic if kind == "fake" else executors.Encoder
        return gateway.add(name=f"{name}_clip", uses=uses, timeout_ready=READY_WITHIN)
    import onnx_models
    from annlite.executor import AnnLiteIndexer
    from clip_server.executors.clip_onnx import CLIPEncoder

    model = {"model_path": str(onnx_models.write(work / kind, WEIGHTS[kind])), "device": "cpu"}
    return gateway.add(name=f"{name}_clip", uses=CLIPEncoder, uses_with=model, timeout_ready=READY_WITHIN).add(
        name=f"{name}_indexer",
        uses=AnnLiteIndexer,
        uses_with={"n_dim": 512},
        workspace=str(work / f"index-{name}"),
        timeout_ready=READY_WITHIN,
    )


def end_with_stdin():
    """Kill every process of the flows when the one that started them is gone."""
    while os.read(0, 4096):  # not through sys.stdin, whose lock the forked executors would inherit
        pass
    os.killpg(0, signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["fake", "encoder", *WEIGHTS])
    parser.add_argument("work", type=Path)
    parser.add_argument("--ports", type=int, nargs=6)
    given = parser.parse_args()
    threading.Thread(target=end_with_stdin, daemon=True).start()
    ready = os.dup(1)
    os.dup2(2, 1)
    ports = given.ports or free_ports(6)
    tls = {"ssl_certfile": str(given.work / "cert.pem"), "ssl_keyfile": str(given.work / "key.pem")}
    with contextlib.ExitStack() as running:
        processes = {}
        for name, its_ports, secured in (("plain", ports[:3], {}), ("tls", ports[3:], tls)):
            running.enter_context(flow(given.kind, name, its_ports, given.work, **secured))
            for child in multiprocessing.active_children():
                if child.pid not in processes.values():
                    role = child.name.partition("/")[0]
                    processes[f"{name}_gateway" if role == "gateway" else role] = child.pid
        line = {"ports": dict(zip(SCHEMES, ports, strict=True)), "processes": processes}
        os.write(ready, json.dumps(line).encode() + b"\n")
        os.close(ready)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        while True:
            signal.pause()


if __name__ == "__main__":
    main()
