"""A real server is killed and started again, and calls with the default options continue on all schemes."""

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from casdk import TLS, Client
from casdk.server import serve
from casdk.testing import SCHEMES
from casdk.testing._thread import reserve
from casdk.testing.certificates import authority

DISTINCT = [f"sentence {number} of those that are sent" for number in range(997)]
BATCH = 4
WINDOW = 64
"""More requests than a call has in flight, or answered before their turn."""
LOADING_SECONDS = 2.6
"""Until a new server begins to start, which takes most of a second more: as if it loaded weights."""


class Restarts:
    """A real server on fixed ports that is killed and started again, under six clients at once.

    Attributes:
        served: The server that runs now.
        away: Seconds that it was away, each time.
    """

    def __init__(self, directory):
        self.cert, self.key = authority().server().write(directory)
        self._life = contextlib.ExitStack()
        self.away = []
        # Held all the time, or another test's server might get a port while this one is away.
        self._reserved = {scheme: reserve() for scheme in SCHEMES}
        self.served = self._start()
        self.addresses = self.served.addresses

    def _start(self):
        ports = {scheme: reserved.getsockname()[1] for scheme, reserved in self._reserved.items()}
        return self._life.enter_context(serve(ports=ports, cert=self.cert, key=self.key, index=False))

    def restart(self):
        began = time.monotonic()
        os.kill(self.served.pid, signal.SIGKILL)
        self._life.close()
        time.sleep(LOADING_SECONDS)
        self.served = self._start()
        self.away.append(time.monotonic() - began)

    def close(self):
        self._life.close()
        for reserved in self._reserved.values():
            reserved.close()


class Reading:
    """What the calls have read so far, and until when they read on."""

    def __init__(self):
        self.counts = dict.fromkeys(SCHEMES, 0)
        self.over = threading.Event()
        self._aims = dict.fromkeys(SCHEMES, 0)
        self._changed = threading.Condition()

    def texts(self, scheme):
        """Yield the same texts again and again; slowly, once a call has read as far as it is waited for."""
        while not self.over.is_set():
            yield DISTINCT[self.counts[scheme] % len(DISTINCT)]
            with self._changed:
                self.counts[scheme] += 1
                self._changed.notify_all()
            if self.counts[scheme] > self._aims[scheme]:
                self.over.wait(0.01)

    def wait_for_all(self, more):
        """Wait until each call has read so many items more."""
        with self._changed:
            self._aims = {scheme: count + more for scheme, count in self.counts.items()}
            assert self._changed.wait_for(lambda: all(self.counts[one] >= self._aims[one] for one in SCHEMES), 120)


@pytest.mark.parametrize("restarts", [1, pytest.param(50, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_restarts_under_defaults(tmp_path, expected, tally, restarts):
    """A call per scheme goes on while a server that takes 3 s to come up is killed: no option is given but TLS."""
    server, reading = Restarts(tmp_path), Reading()

    def run(scheme):
        tls = TLS(ca=authority().pem) if scheme.endswith("s") else None
        with Client(server.addresses[scheme], tls=tls) as client:
            return client.encode(reading.texts(scheme), batch_size=BATCH)

    with contextlib.closing(server), ThreadPoolExecutor(len(SCHEMES)) as pool:
        calls = {scheme: pool.submit(run, scheme) for scheme in SCHEMES}
        try:
            for _ in range(restarts):
                reading.wait_for_all(2 * WINDOW * BATCH)
                server.restart()
            reading.wait_for_all(2 * WINDOW * BATCH)
        finally:
            reading.over.set()
        whole = expected(DISTINCT)
        for scheme, call in calls.items():
            found = call.result()
            assert len(found) == reading.counts[scheme]
            np.testing.assert_array_equal(found, whole[np.arange(len(found)) % len(DISTINCT)])
            tally("restarts under defaults: items", len(found))
    assert min(server.away) >= LOADING_SECONDS
    tally("restarts under defaults: kills of a call's server", restarts * len(SCHEMES))
