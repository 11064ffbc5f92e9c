"""With gevent and eventlet everything works on every scheme, and what cannot work is a ConfigError.

Each test runs in a process of its own: nothing unpatches Python.
"""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest
from casdk._engine import greenlets as _greenlets
from casdk._transport.address import parse_address
from casdk._transport.greenlets import check_greenlets

LIBRARIES = ("gevent", "eventlet")
PATCH = {
    "gevent": "from gevent import monkey, sleep, spawn; monkey.patch_all()",
    "eventlet": "from eventlet import monkey_patch, sleep, spawn; monkey_patch()",
}
JOIN = {"gevent": "get", "eventlet": "wait"}
"""The method that waits for what a greenlet returns."""


def play(script, *arguments):
    """Run a script; what it does not do in time is a hang."""
    head = "import faulthandler; faulthandler.dump_traceback_later(100, exit=True)\n"
    command = [sys.executable, "-W", "ignore", "-c", head + script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines()[-1:] == ["well"], done.stdout + done.stderr


EVERYTHING = """
{patch}
import os, sys, threading, time
from casdk import TLS, CasdkError, Client, DeadlineError, Document, RejectedError

address, ca, image, url = sys.argv[1:]
tls = TLS(ca=ca) if address.partition(":")[0].endswith("s") else None
client = Client(address, tls=tls, timeout=60)

# Fifty at once, while another greenlet goes on.
ticks = []

def tick():
    while not ticks or ticks[-1] is not None:
        ticks.append(time.monotonic())
        sleep(0.01)

clock = spawn(tick)
client.encode(["!!sleep:0.5"])
assert len(ticks) > 2, len(ticks)
greenlets = [spawn(client.encode, [str(number), "a"]) for number in range(50)]
found = [greenlet.{join}() for greenlet in greenlets]
assert all(rows.shape == (2, 512) for rows in found)

# Deadlines, five at once: each passes long before the server would have answered.
def late():
    start = time.monotonic()
    try:
        client.encode(["!!sleep:10"], timeout=0.2)
    except DeadlineError:
        return time.monotonic() - start

greenlets = [spawn(late) for _ in range(5)]
worst = max(greenlet.{join}() for greenlet in greenlets)
assert worst < 8, worst
ticks.append(None)

# Files, downloads, streams, other verbs, calls in callbacks, merged calls of threads, which are greenlets.
assert client.encode([image, url, "a"]).shape == (3, 512)
assert sum(len(rows) for rows in client.stream((str(n) for n in range(50)), batch_size=5)) == 50
assert client.rank([Document(text="a", matches=[Document(text="b")])])[0].matches
inner = []
client.encode(["a", "b"], batch_size=1, on_done=lambda response: inner.append(client.encode(["c"]).shape))
assert inner == [(1, 512)] * 2
try:
    client.encode(["!!raise"])
except RejectedError:
    pass
merged, found = Client(address, tls=tls, coalesce=True), []
threads = [threading.Thread(target=lambda: found.append(merged.encode(["a"]).shape)) for _ in range(30)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert found == [(1, 512)] * 30

# A child, as of gunicorn with --preload.
child = os.fork()
if child == 0:
    os._exit(client.encode(["a"]).shape != (1, 512))
assert os.waitpid(child, 0)[1] == 0
assert client.encode(["a"]).shape == (1, 512)
merged.close()
client.close()
print("well")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    ("library", "scheme"),
    [
        *(("gevent", scheme) for scheme in ("grpc", "https")),
        ("eventlet", "websockets"),
        *(pytest.param("gevent", scheme, marks=pytest.mark.soak) for scheme in ("grpcs", "http", "websocket")),
        *(pytest.param("eventlet", scheme, marks=pytest.mark.soak) for scheme in ("grpcs", "http")),
    ],
)
def test_everything_works(server, scheme, library, images, web, tmp_path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(server.ca if isinstance(server.ca, bytes) else Path(server.ca).read_bytes())
    script = EVERYTHING.format(patch=PATCH[library], join=JOIN[library])
    play(script, server.address(scheme), ca, images["png"], web(images["jpeg"]))


TAKEN_BACK = """
import gevent.monkey
gevent.monkey.patch_all()
import sys
from casdk import Client

with Client(sys.argv[1]) as client:
    for _ in range(2):
        try:
            with gevent.Timeout(0.2):
                client.encode(["!!sleep:1"])
        except gevent.Timeout:
            pass
        killed = gevent.spawn(client.encode, ["!!sleep:1"])
        gevent.sleep(0.1)
        killed.kill()
        assert killed.dead
    assert client.encode(["a"]).shape == (1, 512)
print("well")
"""


@pytest.mark.parametrize(
    "scheme", ["grpc", pytest.param("http", marks=pytest.mark.soak), pytest.param("websocket", marks=pytest.mark.soak)]
)
def test_gevents_own_timeouts_take_calls_back(server, scheme):
    play(TAKEN_BACK, server.address(scheme))


REFUSED = """
import sys
from casdk import Client, ConfigError

def refused(act, *words):
    try:
        act()
    except ConfigError as error:
        missing = [word for word in words if word not in str(error)]
        assert not missing, (missing, error)
    else:
        raise AssertionError("it was not refused")
"""

WHEN_MADE = f"""
{{patch}}
{REFUSED}
for address in ("grpc://127.0.0.1:1", "grpcs://127.0.0.1:1"):
    refused(lambda: Client(address, transport="libraries"), "threads of grpcio", "leave out transport=", "{{library}}")
print("well")
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_grpcio_is_refused_when_a_client_is_made(library):
    play(WHEN_MADE.format(patch=PATCH[library], library=library))


PATCHED_LATER = f"""
{REFUSED}
clients = [Client(address) for address in sys.argv[1:]]
grpcio = Client(sys.argv[1], transport="libraries")
{{patch}}
refused(lambda: grpcio.encode(["a"]), "threads of grpcio", "{{library}}")
refused(lambda: next(grpcio.stream(["a"])), "threads of grpcio")
for client in clients:
    assert client.encode(["a"]).shape == (1, 512)
    client.close()
grpcio.close()
print("well")
"""


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_client_that_was_made_before(server, library):
    addresses = map(server.address, ("grpc", "http", "websocket"))
    play(PATCHED_LATER.format(patch=PATCH[library], library=library), *addresses)


USED_BEFORE = f"""
{REFUSED}
client = Client(sys.argv[1])
client.encode(["a"])
{{patch}}
refused(lambda: client.encode(["a"]), "after casdk's first call")
refused(lambda: next(client.stream(["a"])), "after casdk's first call")
print("well")
"""


@pytest.mark.parametrize(("library", "scheme"), [("gevent", "grpc"), ("eventlet", "http")])
def test_a_client_that_was_used_before(server, library, scheme):
    play(USED_BEFORE.format(patch=PATCH[library]), server.address(scheme))


ELSEWHERE = f"""
import asyncio, threading
import gevent.monkey
gevent.monkey.patch_all()
{REFUSED}

async def call(client):
    return await client.aencode(["a"])

async def call_inside(client):
    return client.encode(["a"])

with Client(sys.argv[1]) as client:
    # The loop of the engine would have to run inside of this one.
    refused(lambda: asyncio.run(call(client)), "asyncio loop is running")
    refused(lambda: asyncio.run(call_inside(client)), "asyncio loop is running")
    assert client.encode(["a"]).shape == (1, 512)
    pool = gevent.get_hub().threadpool
    pool.hub.print_exception = lambda *arguments: None
    refused(lambda: pool.spawn(client.encode, ["a"]).get(), "greenlets of one thread")
    assert client.encode(["a"]).shape == (1, 512)
print("well")
"""


def test_loops_and_threads_of_others_are_refused(server):
    play(ELSEWHERE, server.address("http"))


PARTLY = f"""
{REFUSED}
{{patch}}
for address in sys.argv[1:]:
    refused(lambda: Client(address), "{{left}}", "{{call}}")
print("well")
"""
PARTS = {
    "thread=False": ("gevent.monkey", "patch_all(thread=False)", "threading"),
    "queue=False": ("gevent.monkey", "patch_all(queue=False)", "queue"),
    "select=False": ("gevent.monkey", "patch_all(select=False)", "select"),
    "socket": ("gevent.monkey", "patch_socket()", "threading and queue and select"),
    "eventlet, thread=False": ("eventlet", "monkey_patch(thread=False)", "thread"),
    "eventlet, socket": ("eventlet", "monkey_patch(all=False, socket=True)", "thread and select"),
}


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_python_patched_is_refused(part):
    module, call, left = PARTS[part]
    whole = "gevent.monkey.patch_all()" if module == "gevent.monkey" else "eventlet.monkey_patch()"
    script = PARTLY.format(patch=f"import {module}; {module}.{call}", left=left, call=whole)
    play(script, "grpc://127.0.0.1:1", "http://127.0.0.1:1", "websockets://127.0.0.1:1")


def test_what_concerns_no_greenlet_may_be_patched():
    play("from gevent import monkey; monkey.patch_time(); from casdk import Client; Client('grpc://x'); print('well')")


def test_nothing_is_imported_for_it():
    assert _greenlets.patcher() is None
    check_greenlets(parse_address("grpc://127.0.0.1:1"), "libraries")
    assert not {"gevent", "eventlet"} & set(sys.modules)


APPLICATION = """
import os
from casdk import Client, ConfigError

client = Client(os.environ["SERVER"], timeout=60, transport=os.environ["TRANSPORT"] or None)
if os.environ["USED"]:
    client.encode(["before the workers are forked"])

def application(environ, start_response):
    try:
        body = str(client.encode([environ["QUERY_STRING"]]).shape)
    except ConfigError as error:
        body = str(error)
    start_response("200 OK", [("content-type", "text/plain")])
    return [body.encode()]
"""


@pytest.fixture
def gunicorn(server, tmp_path):
    """A function from a scheme and gunicorn's options to what its gevent workers answer."""
    (tmp_path / "service.py").write_text(APPLICATION)
    running = []

    def serve(scheme, *options, used=False, transport=""):
        settings = {"SERVER": server.address(scheme), "USED": "yes" if used else "", "TRANSPORT": transport}
        command = [sys.executable, "-W", "ignore", "-m", "gunicorn", "service:application", "-k", "gevent", "-w", "2"]
        # A SIGTERM that comes while a worker boots is lost to it: gunicorn waits for such a one until this is over.
        command += ["--bind", "127.0.0.1:0", "--no-control-socket", "--graceful-timeout", "1", *options]
        process = subprocess.Popen(command, cwd=tmp_path, env=os.environ | settings, stderr=subprocess.PIPE, text=True)
        running.append(process)
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "Listening at" in line:
                break
        port = int(lines[-1].split("127.0.0.1:")[1].split()[0])

        def ask(number):
            with closing(HTTPConnection("127.0.0.1", port, timeout=90)) as connection:
                connection.request("GET", f"/?{number}")
                return connection.getresponse().read().decode()

        with ThreadPoolExecutor(25) as pool:
            return list(pool.map(ask, range(50)))

    yield serve
    for process in running:
        process.terminate()
        process.communicate(timeout=30)


@pytest.mark.parametrize(
    "scheme", ["grpc", *(pytest.param(one, marks=pytest.mark.soak) for one in ("http", "websocket"))]
)
def test_gunicorns_gevent_workers(gunicorn, scheme):
    assert gunicorn(scheme) == ["(1, 512)"] * 50


@pytest.mark.soak
@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_gunicorns_gevent_workers_of_a_used_client(gunicorn, scheme):
    assert gunicorn(scheme, "--preload", used=True) == ["(1, 512)"] * 50


def test_gunicorns_gevent_workers_refuse_grpcio(gunicorn):
    answers = gunicorn("grpc", "--preload", used=True, transport="libraries")
    assert all("threads of grpcio" in answer for answer in answers)
