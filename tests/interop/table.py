"""The compatibility table: which scheme and verb works against which server, from the tests that ran.

A test belongs to the table when it is parametrized by ``server``, ``scheme`` and ``verb``. Its client is
casdk unless its module names another in ``CLIENT``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

import pytest

SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")
VERBS = ("encode", "rank", "index", "search", "profile")


class Table:
    """A pytest plugin that collects the outcomes and writes them as Markdown.

    With ``CI`` in the environment a skipped test counts as failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):
        report: pytest.TestReport = (yield).get_result()
        if report.skipped and os.environ.get("CI"):
            report.outcome, report.longrepr = (
                "failed",
                f"skipped in CI: {call.excinfo and call.excinfo.value}",
            )
        given = getattr(item, "callspec", None)
        if given is None or not {"server", "scheme", "verb"} <= given.params.keys():
            return
        if report.when == "call" or report.outcome != "passed":
            client = getattr(item.module, "CLIENT", "casdk")  # type: ignore[attr-defined]
            cell = (
                str(given.params["server"]),
                client,
                str(given.params["verb"]),
                str(given.params["scheme"]),
            )
            self._cells[cell].append(_verdict(report, call))

    def pytest_sessionfinish(self) -> None:
        if self._cells:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(self.markdown())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._cells:
            terminalreporter.section("compatibility")
            terminalreporter.write_line(self.markdown())

    def markdown(self) -> str:
        """Return the table, a row for each server, client and verb, a column for each scheme."""
        lines = [_row("server", "client", "verb", *SCHEMES), _row(*["---"] * (3 + len(SCHEMES)))]
        groups = dict.fromkeys((server, client) for server, client, _, _ in self._cells)
        for server, client in groups:
            for verb in VERBS:
                cells = [self._cells.get((server, client, verb, scheme)) for scheme in SCHEMES]
                if any(cells):
                    lines.append(_row(server, client, verb, *map(_summary, cells)))
        return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    if report.passed:
        return "pass"
    reason = call.excinfo and call.excinfo.value
    said = str(reason).strip().partition("\n")[0].replace("|", "/")
    return f"skipped: {said}" if report.skipped else f"{type(reason).__name__}: {said}"


def _summary(verdicts: list[str] | None) -> str:
    if not verdicts:
        return ""
    failures = [v for v in verdicts if v != "pass"]
    if not failures:
        return "pass"
    return f"{failures[0][:80]} ({len(failures)} of {len(verdicts)})"
