"""uWSGI: it makes the application in its master, then forks the workers in C, by default without Python's hooks."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from casdk.testing import FaultServer, embed
from casdk.testing._thread import reserve

PATIENCE = 20
APPLICATION = """
import json, os, time
from contextlib import suppress
from pathlib import Path
from casdk import TLS, Client

def switches():
    "How often each thread but this one has run so far, by the system's count."
    found = {}
    for task in Path("/proc/self/task").iterdir():
        if task.name != str(os.getpid()):
            with suppress(OSError):  # a thread may end meanwhile
                found[task.name] = [line for line in (task / "status").read_text().splitlines() if "switches" in line]
    return found

address, ca = os.environ["ADDRESS"], os.environ["CA"]
client = Client(address, tls=TLS(ca=ca) if address.partition(":")[0].endswith("s") else None, coalesce=True)
client.encode(["in the master, or in each worker"])
# By default uWSGI forks in C while it holds the interpreter's lock, and a worker hangs for good if another thread wants
# that lock at this moment. So fork when the engine has done everything that followed the call, and only waits.
before = None
while before != (before := switches()):
    time.sleep(0.05)

def application(environ, start_response):
    rows = client.encode([environ["QUERY_STRING"]]).tolist()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), rows]).encode()]
"""
SETTINGS = {"default": (), "hooks": ("--py-call-uwsgi-fork-hooks",), "lazy": ("--lazy-apps",)}


@pytest.fixture(params=["grpc", "grpcs", "http", "websockets"])
def scheme(request):
    return request.param


@pytest.fixture(params=SETTINGS)
def setting(request):
    return request.param


@pytest.fixture
def service(scheme, setting, tmp_path):
    """A uWSGI and its port, with two workers of four threads each."""
    program = tmp_path / "service.py"
    program.write_text(APPLICATION)
    ca = tmp_path / "ca.pem"
    with reserve() as reserved, FaultServer() as server, (tmp_path / "log").open("w") as log:
        port = reserved.getsockname()[1]  # uWSGI may listen there, and no other program gets it
        ca.write_bytes(server.ca)
        command = [str(Path(sys.executable).with_name("uwsgi")), "--http-socket", f"127.0.0.1:{port}", "--master"]
        command += ["--need-app", "--die-on-term", "--processes", "2", "--threads", "4", "--wsgi-file", str(program)]
        environment = os.environ | {"ADDRESS": server.address(scheme), "CA": str(ca)}
        process = subprocess.Popen(
            [*command, *SETTINGS[setting]], env=environment, stdout=log, stderr=log, start_new_session=True
        )
        try:
            yield process, port
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert "Traceback" not in (tmp_path / "log").read_text()


def ask(port, text):
    """Return who answered, and what."""
    until = time.monotonic() + PATIENCE
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        try:
            connection.request("GET", f"/?{text}")
            return json.loads(connection.getresponse().read())
        except ConnectionError:  # it does not listen yet, or the worker was killed
            if time.monotonic() > until:
                raise
        finally:
            connection.close()


def check(port):
    """Return the workers that answered."""
    texts = [f"text{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda text: ask(port, text), texts))
    for text, (_, rows) in zip(texts, answers, strict=True):
        np.testing.assert_array_equal(np.float32(rows), [embed(text)])
    return {pid for pid, _ in answers}


def test_workers(service):
    """They answer, and end when they are told to."""
    process, port = service
    answered = check(port)
    while len(answered) < 2:  # the other one makes its application still
        answered |= check(port)
    process.terminate()
    process.wait(PATIENCE)


def test_workers_for_others_that_died(service):
    """They are forked when the master has long had the client."""
    _, port = service
    before = check(port)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    assert not before & check(port)
