"""Where contenders meet: round by round, one after the other, so that a noisy machine is noisy for all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from statistics import median
from typing import Any, NamedTuple

from contenders import OTHERS, Contender, FailedError
from peers import DIALECT, Peer

ROUNDS = int(os.environ.get("CASDK_BENCH_ROUNDS", "5"))
SECONDS = float(os.environ.get("CASDK_BENCH_SECONDS", "0.25"))
OURS = "casdk"

Case = dict[str, Any]
Figures = dict[str, list[float]]
"""One number per round, by what was measured."""


class Rival(NamedTuple):
    """Who runs a case beside casdk.

    Attributes:
        label: Its column.
        contender: Its program.
        changes: What is different in its case.
    """

    label: str
    contender: str
    changes: Case = {}


class Row(NamedTuple):
    """One line of the table.

    Attributes:
        claim: What was done.
        scheme: Over which scheme.
        figures: By contender.
        failures: What contenders said who could not do it.
    """

    claim: str
    scheme: str
    figures: dict[str, Figures]
    failures: dict[str, str]

    def ratio(self, rival: str, figure: str) -> float | None:
        """Return how many times casdk's figure the rival's is: the median over rounds, paired; None if unknown."""
        if rival not in self.figures or figure not in self.figures[rival]:
            return None
        pairs = zip(self.figures[rival][figure], self.figures[OURS][figure], strict=True)
        return median(theirs / ours for theirs, ours in pairs)


class Arena:
    """Runs cases and keeps the rows.

    Args:
        servers: By name, ``fast`` and ``own``; each is started when it is first needed.
    """

    def __init__(self, servers: dict[str, Callable[[], AbstractContextManager[Peer]]]) -> None:
        self.rows: list[Row] = []
        self._servers = servers
        self._stack = ExitStack()
        self._peers: dict[str, Peer] = {}
        self._running: dict[tuple[str, str, str, str], Contender] = {}

    def close(self) -> None:
        """End every contender and every server."""
        self._running.clear()
        self._peers.clear()
        self._stack.close()

    def peer(self, name: str) -> Peer:
        """Return a running server."""
        if name not in self._peers:
            self._peers[name] = self._stack.enter_context(self._servers[name]())
        return self._peers[name]

    def contender(self, label: str, program: str, peer: str, scheme: str, *, fresh: bool = False) -> Contender:
        """Return the process of a contender; it stays for the next case."""
        key = (label, program, peer, scheme)
        if fresh or key not in self._running or not self._running[key].running:
            spoken = DIALECT if program in OTHERS else scheme
            address = self.peer(peer).address(spoken, original=program == "original")
            self._running[key] = self._stack.enter_context(Contender(program, *address))
        return self._running[key]

    def compete(
        self, benchmark: Any, claim: str, scheme: str, case: Case, rivals: Iterable[Rival], peer: str = "fast"
    ) -> Row:
        """Run a case by casdk and its rivals, round by round; CPU and wall time are in seconds an item.

        Raises:
            AssertionError: A rival's embeddings differ from casdk's: one of the two does something else.
        """
        row = Row(claim, scheme, {}, {})
        runs: dict[str, Callable[[], None]] = {}
        wanted = None
        for rival in (Rival(OURS, OURS), *rivals):
            own_case = case | rival.changes
            try:
                contender = self.contender(rival.label, rival.contender, peer, scheme)
                got = contender.do("check", own_case)
            except FailedError as error:
                if rival.label == OURS:
                    raise
                row.failures[rival.label] = str(error)
                continue
            wanted = wanted or got
            assert got["digest"] in (None, wanted["digest"]), f"{rival.label} has other rows than casdk"
            runs[rival.label] = _run(row, rival.label, contender, own_case)

        def others() -> None:
            for label in [label for label in runs if label != OURS]:
                try:
                    runs[label]()
                except FailedError as error:
                    # In mid-run: no ratio of it can be paired any more.
                    row.failures[label] = str(error)
                    row.figures.pop(label, None)
                    del runs[label]

        benchmark.pedantic(runs[OURS], setup=others, rounds=ROUNDS, iterations=1)
        return self._keep(row, benchmark)

    def compete_once(
        self,
        benchmark: Any,
        claim: str,
        scheme: str,
        case: Case,
        rivals: Iterable[Rival],
        prepare: Callable[[], None],
    ) -> Row:
        """Run a case once in a new process, which has made a small call before; CPU and wall time in seconds an item.

        Args:
            benchmark: The fixture.
            claim: The name of the row.
            scheme: The scheme of the server.
            case: The case.
            rivals: Who runs it beside casdk, against the fast server.
            prepare: Called before each process runs the case.

        Raises:
            AssertionError: A rival's embeddings differ from casdk's: one of the two does something else.
        """
        row, small = Row(claim, scheme, {}, {}), case | {"n": 64}
        field = (*rivals, Rival(OURS, OURS))

        def run(rival: Rival, order: str) -> dict[str, Any]:
            with Contender(rival.contender, *self.peer("fast").address(scheme)) as contender:
                prepare()
                contender.do("check", small | rival.changes)
                return contender.do(order, case | rival.changes)

        def all_of_them() -> None:
            for rival in field:
                got = run(rival, "once")
                _note(row, rival.label, {name: got[name] / case["n"] for name in ("cpu", "wall")})

        digests = {run(rival, "check")["digest"] for rival in field}
        assert len(digests) == 1, "a rival has other rows than casdk"
        benchmark.pedantic(all_of_them, rounds=ROUNDS, iterations=1)
        return self._keep(row, benchmark)

    def time_calls(
        self, benchmark: Any, claim: str, scheme: str, case: Case, rivals: Iterable[Rival], calls: int
    ) -> Row:
        """Time single calls one after the other; p50 and p99 in seconds."""
        row = Row(claim, scheme, {}, {})
        field = [(rival, self.contender(rival.label, rival.contender, "fast", scheme)) for rival in rivals]
        ours = self.contender(OURS, OURS, "fast", scheme)
        for rival, contender in field:
            contender.do("check", case | rival.changes)
        ours.do("check", case)

        def others() -> None:
            for rival, contender in field:
                times = contender.do("latency", case | rival.changes, calls=calls)["times"]
                _note(row, rival.label, {"p50": _percentile(times, 50), "p99": _percentile(times, 99)})

        def own() -> None:
            times = ours.do("latency", case, calls=calls)["times"]
            _note(row, OURS, {"p50": _percentile(times, 50), "p99": _percentile(times, 99)})

        benchmark.pedantic(own, setup=others, rounds=ROUNDS, iterations=1)
        return self._keep(row, benchmark)

    def weigh(self, benchmark: Any, claim: str, scheme: str, case: Case, rivals: Iterable[Rival]) -> Row:
        """Run a case once in a new process; by how many bytes its peak grew beyond the result."""
        row = Row(claim, scheme, {}, {})
        small = case | {"n": 64}

        def all_of_them() -> None:
            for rival in (Rival(OURS, OURS), *rivals):
                contender = self.contender(rival.label, rival.contender, "fast", scheme, fresh=True)
                contender.do("check", small | rival.changes)
                got = contender.do("memory", case | rival.changes)
                _note(row, rival.label, {"beyond": float(got["grown"] - got["result"])})

        benchmark.pedantic(all_of_them, rounds=1, iterations=1)
        return self._keep(row, benchmark)

    def keep(self, row: Row, benchmark: Any) -> Row:
        """Take in a row that was measured elsewhere."""
        return self._keep(row, benchmark)

    def _keep(self, row: Row, benchmark: Any) -> Row:
        benchmark.extra_info.update(figures=row.figures, failures=row.failures)
        self.rows.append(row)
        return row


def _run(row: Row, label: str, contender: Contender, case: Case) -> Callable[[], None]:
    def run() -> None:
        got = contender.do("run", case, seconds=SECONDS)
        items = got["calls"] * case["n"]
        counted = {name: count / items for name, count in got["counts"].items()}
        _note(row, label, {"cpu": got["cpu"] / items, "wall": got["wall"] / items, **counted})

    return run


def _note(row: Row, label: str, numbers: dict[str, float]) -> None:
    for figure, number in numbers.items():
        row.figures.setdefault(label, {}).setdefault(figure, []).append(number)


def _percentile(times: list[float], percent: int) -> float:
    ordered = sorted(times)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]
