"""A log handler is the caller's code: it may encode, block, fail or fork, and nothing waits for it without a limit."""

import contextvars
import gc
import logging
import logging.config
import os
import re
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from casdk import ItemError, Retry
from casdk._engine import logging as _logging
from casdk._engine import threads as _threads
from casdk.testing import Cut, Refuse

PATIENCE = 20
QUICK = Retry(backoff=0.001, max_backoff=0.01)
OURS = re.compile("casdk-(engine|pack|names)")


class Handler(logging.Handler):
    """Does something with every record, under its own lock, as every handler does.

    Attributes:
        seen: Logger, thread that logged and thread that emitted, of each record.
    """

    def __init__(self, act=lambda record: None):
        super().__init__()
        self.act = act
        self.seen = []

    def emit(self, record):
        self.seen.append((record.name, record.threadName, threading.current_thread().name))
        self.act(record)

    @property
    def loggers(self):
        return {name for name, _, _ in self.seen}

    def check(self):
        """Nothing was emitted on a thread that callers wait for."""
        assert not [seen for seen in self.seen if OURS.match(seen[2])]


@pytest.fixture
def attach():
    """A function that lets a handler have everything that is logged."""
    root, handlers = logging.getLogger(), []
    level = root.level

    def attach(handler):
        root.setLevel(logging.DEBUG)
        root.addHandler(handler)
        handlers.append(handler)
        return handler

    yield attach
    for handler in handlers:
        root.removeHandler(handler)
    root.setLevel(level)
    assert _logging.flush(PATIENCE)


def not_of_the_handlers_own_loop(record):
    return (record.name, record.threadName) != ("asyncio", threading.current_thread().name)


def test_a_handler_that_encodes(client, call, mode, attach):
    found = []
    handler = attach(Handler(lambda record: found.append((record.name, call(client, "encode", [record.name])))))
    handler.addFilter(not_of_the_handlers_own_loop)
    logging.getLogger("app").info("from the caller's thread")
    name = threading.current_thread().name
    assert ("app", name, name) in handler.seen
    rows = call(client, "encode", ["app"])
    assert _logging.flush(PATIENCE)
    assert {"casdk.calls", "casdk.connections"} <= handler.loggers
    with handler.lock:  # logging has it while a handler works on a record, and one may have come by now
        assert [logger for logger, _ in found] == [logger for logger, _, _ in handler.seen]
        [of_the_app] = [encoded for logger, encoded in found if logger == "app"]
    np.testing.assert_array_equal(of_the_app, rows)
    handler.check()


class Locking(Handler):
    """Has a lock that its own thread cannot take twice."""

    def __init__(self, act):
        super().__init__(act)
        self.mutex = threading.Lock()

    def emit(self, record):
        with self.mutex:
            super().emit(record)


class Early(Handler):
    """Encodes while it is made, which `dictConfig` does under logging's own lock."""

    def __init__(self, act):
        super().__init__(act)
        act(None)


class Closing(Handler):
    """Encodes when it is closed, which `basicConfig(force=True)` does under logging's own lock."""

    def __init__(self, act):
        super().__init__()
        self.last = act

    def close(self):
        self.last(None)
        super().close()


@pytest.fixture(params=["grpc", "http", "websocket"])
def found(request, connect):
    """What was encoded by a function, which is this list's ``act``."""

    class Found(list):
        client = connect(request.param)

        def act(self, record):
            self.append(self.client.encode(["a record"]))

    # Python may collect another test's handlers on any thread, and takes logging's lock for that.
    gc.collect()
    gc.disable()
    found = Found()
    yield found
    gc.enable()
    assert all(rows.shape == (1, 512) for rows in found)
    assert found
    assert found.client.encode(["outer"]).shape == (1, 512)


def test_a_handler_with_a_lock_of_its_own(found, attach):
    handler = attach(Locking(found.act))
    logging.getLogger("app").info("hello")
    assert _logging.flush(PATIENCE)
    handler.check()
    assert "casdk.calls" in handler.loggers


def test_a_handler_that_encodes_while_it_is_made(found, attach):
    attach(Handler())
    settings = {"version": 1, "incremental": False, "disable_existing_loggers": False}
    logging.config.dictConfig({**settings, "handlers": {"early": {"()": Early, "act": found.act}}})


def test_a_handler_that_encodes_when_it_is_closed(found, attach):
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        root.handlers[:] = [Closing(found.act)]
        logging.basicConfig(force=True, level=logging.DEBUG, handlers=[Handler()])
    finally:
        root.handlers[:] = before


def test_a_filter_that_encodes(found, attach):
    handler = attach(Handler())

    def encode(record):
        if threading.get_ident() not in _threads.our_threads:
            found.act(record)
        return True

    for name in ("app", "casdk.calls", "casdk.connections", "httpcore.http11", "casdk.connections.websocket"):
        logging.getLogger(name).addFilter(encode)
    try:
        logging.getLogger("app").info("hello")
        assert _logging.flush(PATIENCE)
    finally:
        for name in ("app", "casdk.calls", "casdk.connections", "httpcore.http11", "casdk.connections.websocket"):
            logging.getLogger(name).removeFilter(encode)
    assert handler.loggers > {"app"}


def test_a_record_factory_that_encodes(found, attach):
    original = logging.getLogRecordFactory()
    busy = threading.local()
    threads = set()

    def factory(*arguments, **options):
        record = original(*arguments, **options)
        threads.add(threading.current_thread().name)
        if not getattr(busy, "busy", False):
            busy.busy = True
            found.act(record)
            busy.busy = False
        record.mark = "made by the factory"
        return record

    marks = []
    attach(Handler(lambda record: marks.append(record.mark)))
    logging.setLogRecordFactory(factory)
    try:
        logging.getLogger("app").info("hello")
        assert _logging.flush(PATIENCE)
    finally:
        logging.setLogRecordFactory(original)
    assert set(marks) == {"made by the factory"}
    assert not [name for name in threads if OURS.match(name)]


COLD = """
import faulthandler, logging, sys, threading
faulthandler.dump_traceback_later(60, exit=True)
from casdk import Client, TLS

class Handler(logging.Handler):
    def emit(self, record):
        threads.add(threading.current_thread().name)
        found.append(client.encode([record.name]).shape)

threads, found = set(), []
client = Client(sys.argv[1])
logging.getLogger().setLevel(logging.DEBUG)
logging.getLogger().addHandler(Handler())
logging.warning("the first call of the process is made in here")
assert found[0] == (1, 512), found
assert client.encode(["outer"]).shape == (1, 512)
from casdk._engine import logging as _logging
assert _logging.flush(30)
assert set(found) == {(1, 512)} and len(found) > 5, found
assert threads == {"MainThread", "casdk-log"}, threads
print("well")
"""


@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_handler_that_makes_the_first_call(server, scheme):
    """With asyncio's debug mode, which logs each loop that is made and each callback that is slow."""
    environment = {**os.environ, "PYTHONASYNCIODEBUG": "1"}
    command = [sys.executable, "-c", COLD, server.address(scheme)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, env=environment, check=False)
    assert done.stdout == "well\n", done.stderr


def test_no_library_emits_on_a_thread_of_ours(make_server, connect_to, scheme, attach, monkeypatch, web, images):
    """Connections that break, refusals, downloads, asyncio's debug mode, PIL images, warnings that are logged."""
    from casdk._engine.process import engine
    from PIL import Image

    handler = attach(Handler())
    server = make_server([Cut("before", "reset"), Refuse.overloaded()])
    client = connect_to(server, scheme, retry=QUICK, transport="libraries")
    loop = engine().loop
    loop.call_soon_threadsafe(loop.set_debug, True)
    logging.captureWarnings(True)
    try:
        with Image.open(images["png"]) as image:
            client.encode(["a", image, web(images["jpeg"]), images["gif"]])
        with pytest.raises(ItemError):
            client.encode([web(images["jpeg"]) + ".missing"])
        loop.call_soon_threadsafe(print_a_warning)
        loop.call_soon_threadsafe(loop.call_exception_handler, {"message": "not an error"})
        loop.call_soon_threadsafe(time.sleep, 0.11)
        client.encode(["b"])
    finally:
        loop.call_soon_threadsafe(loop.set_debug, False)
        logging.captureWarnings(False)
    client.close()
    assert _logging.flush(PATIENCE)
    handler.check()
    assert {"casdk.calls", "casdk.connections", "asyncio", "py.warnings", "httpx", "httpcore.http11"} <= handler.loggers
    assert {thread for name, thread, _ in handler.seen if name == "asyncio"} >= {"casdk-engine"}


def print_a_warning():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        warnings.warn("a library's", DeprecationWarning, stacklevel=1)


def test_a_record_stays_as_it_was(client, attach):
    """Its time, thread, logger, exception and context are those of where it was logged."""
    from casdk._engine.process import engine

    request = contextvars.ContextVar("request", default="none")
    records, contexts = [], []

    def act(record):
        records.append(record)
        contexts.append(request.get())

    attach(Handler(act))
    request.set("number 7")
    began = time.time()
    client.encode(["a"])
    ended = time.time()
    assert _logging.flush(PATIENCE)
    [call] = [record for record in records if record.name == "casdk.calls"]
    assert contexts[records.index(call)] == "number 7"
    assert (call.threadName, call.filename, call.levelno) == ("casdk-engine", "run.py", logging.DEBUG)
    assert call.thread == engine()._ident
    assert began <= call.created <= ended
    assert "1 of 1 items done" in call.getMessage()
    error = ValueError("x")
    engine().post(engine().loop.call_exception_handler, {"message": "it failed: 100 %s", "exception": error})
    client.encode(["a"])
    assert _logging.flush(PATIENCE)
    [failed] = [record for record in records if record.name == "asyncio" and record.levelno == logging.ERROR]
    assert failed.exc_info[1] is error
    assert failed.getMessage() == "it failed: 100 %s"


def test_what_a_call_logs_comes_before_what_its_caller_logs_next(client, call, attach, monkeypatch):
    monkeypatch.setattr(_logging, "END_SECONDS", PATIENCE)  # a machine under load may take longer
    lines = []
    attach(Handler(lambda record: lines.append(record.getMessage())))
    for number in range(20):
        call(client, "encode", ["a"])
        logging.getLogger("app").info("call %d is over", number)
    ours = [line for line in lines if "1 of 1 items done" in line or "is over" in line]
    assert ["is over" in line for line in ours] == [False, True] * 20


def test_nobody_waits_for_a_handler_that_blocks(client, attach, monkeypatch, stopwatch):
    monkeypatch.setattr(_logging, "END_SECONDS", 0.5)
    gate, lines = threading.Event(), []

    def block(record):
        assert gate.wait(PATIENCE)
        lines.append(record.getMessage())

    client.encode(["warm"])
    handler = attach(Handler(block))
    try:
        with stopwatch() as watch:
            for _ in range(50):
                client.encode(["a"])
    finally:
        gate.set()
    # One of them has waited for it, and no other.
    assert watch.seconds < 50 * _logging.END_SECONDS
    assert _logging.flush(PATIENCE)
    assert sum("1 of 1 items done" in line for line in lines) == 50
    handler.check()


def test_a_handler_that_blocks_gets_a_bounded_number_of_records(client, attach, monkeypatch):
    monkeypatch.setattr(_logging, "MOST_RECORDS", 20)
    gate, lines = threading.Event(), []

    def block(record):
        assert gate.wait(PATIENCE)
        lines.append(record.getMessage())

    client.encode(["warm"])
    logging.getLogger("casdk").setLevel(logging.DEBUG)
    attach(Handler(block)).addFilter(lambda record: record.name in ("casdk.calls", "casdk.logging"))
    logging.getLogger().setLevel(logging.WARNING)
    try:
        for _ in range(50):
            client.encode(["a"])
    finally:
        gate.set()
        logging.getLogger("casdk").setLevel(logging.NOTSET)
    assert _logging.flush(PATIENCE)
    said = [int(line.split()[0]) for line in lines if "records were left out" in line]
    assert sum("1 of 1 items done" in line for line in lines) + sum(said) == 50
    assert sum(said) >= 25


def test_a_handler_that_fails(client, attach, monkeypatch):
    reported = []
    monkeypatch.setattr(threading, "excepthook", lambda what: reported.append(what.exc_value))

    def fail(record):
        raise SystemExit if record.levelno == logging.DEBUG else ValueError(record.name)

    client.encode(["warm"])
    attach(Handler(fail))
    for _ in range(3):
        assert client.encode(["a"]).shape == (1, 512)
    assert _logging.flush(PATIENCE)
    assert len(reported) >= 3
    assert {type(error) for error in reported} <= {SystemExit, ValueError}


LAST = """
import logging, sys, time
from casdk import Client
from casdk.testing import FaultServer

class Slow(logging.StreamHandler):
    def createLock(self):
        self.lock = None  # which logging itself would wait for at exit, with no limit

    def emit(self, record):
        time.sleep(float(sys.argv[1]))
        super().emit(record)

with FaultServer(width=8) as server:
    client = Client(server.address("http"))
    client.encode(["warm"])
    log = logging.getLogger("casdk.calls")
    log.setLevel(logging.DEBUG)
    log.addHandler(Slow())
    client.encode(["a"])
"""


def test_the_last_records_of_a_process_are_emitted():
    done = subprocess.run([sys.executable, "-c", LAST, "0.1"], capture_output=True, text=True, timeout=50, check=True)
    assert "1 of 1 items done" in done.stderr


def test_the_end_of_a_process_waits_for_no_handler_for_ever():
    done = subprocess.run([sys.executable, "-c", LAST, "100"], capture_output=True, text=True, timeout=50, check=True)
    assert done.stderr == ""


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("scheme", ["grpc", "http", "websocket"])
def test_a_forked_child_emits_its_own_records(server, scheme, connect, attach):
    client, lines = connect(scheme), []
    client.encode(["warm"])
    attach(Handler(lambda record: lines.append((os.getpid(), record.getMessage())))).setLevel(logging.DEBUG)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        client.encode(["a"])
        _logging.flush(PATIENCE)
        mine = [line for pid, line in lines if pid == os.getpid()]
        os.write(write, str(sum("1 of 1 items done" in line for line in mine)).encode())
        os._exit(0)
    os.close(write)
    assert os.read(read, 10) == b"1"
    os.close(read)
    os.waitpid(child, 0)
    client.encode(["b"])
    assert _logging.flush(PATIENCE)
    assert sum("1 of 1 items done" in line for _, line in lines) == 1


def test_quiet_logging_builds_nothing(client, monkeypatch):
    made = []
    monkeypatch.setattr(_logging, "_Draft", lambda *arguments: made.append(arguments))
    client.encode(["a"])
    assert not made
