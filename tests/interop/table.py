"""The compatibility table: which scheme and verb works against which server, from the tests that ran.

A test belongs to the table when it is parametrized by ``server``, ``scheme`` and ``verb``. Its client is
casdk unless its module names another in ``CLIENT``.
"""

from __future__ import annotations

import os
from collections import defaultdict
from itertools import groupby
from pathlib import Path

import pytest

SCHEMES = ("grpc", "grpcs", "http", "https", "websocket", "websockets")
VERBS = ("encode", "rank", "index", "search", "profile")
SHOWN = 80
"""Characters of a failure."""
SKIPPED = "skipped: "


class Table:
    """A pytest plugin that collects the outcomes and writes them as Markdown.

    With ``CI`` in the environment a skipped test counts as failed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._cells: dict[tuple[str, str, str, str], list[str]] = defaultdict(list)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]):
        report: pytest.TestReport = yield
        if report.skipped and os.environ.get("CI"):
            report.outcome = "failed"
            report.longrepr = f"skipped in CI: {call.excinfo and call.excinfo.value}"
        given = getattr(item, "callspec", None)
        if given is None or not {"server", "scheme", "verb"} <= given.params.keys():
            return report
        if report.when == "call" or report.outcome != "passed":
            client = getattr(item.module, "CLIENT", "casdk")  # type: ignore[attr-defined]
            names = (given.params[name] for name in ("server", "verb", "scheme"))
            server, verb, scheme = map(str, names)
            self._cells[server, client, verb, scheme].append(_verdict(report, call))
        return report

    def pytest_sessionfinish(self) -> None:
        if self._cells:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(self.markdown())

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self._cells:
            terminalreporter.section("compatibility")
            terminalreporter.write_line(self.markdown())

    def markdown(self) -> str:
        """Return the table: a column for each scheme, a row for each server and its verbs that fare alike."""
        lines = [_row("server", "client", "verbs", *SCHEMES), _row(*["---"] * (3 + len(SCHEMES)))]
        for server, client in dict.fromkeys((server, client) for server, client, _, _ in self._cells):
            fared = {verb: [self._summary(server, client, verb, scheme) for scheme in SCHEMES] for verb in VERBS}
            ran = [verb for verb in VERBS if any(fared[verb])]
            for cells, verbs in groupby(ran, key=fared.__getitem__):
                lines.append(_row(server, client, ", ".join(verbs), *(cell or "-" for cell in cells)))
        return "\n".join(lines) + "\n"

    def _summary(self, server: str, client: str, verb: str, scheme: str) -> str:
        """Return ``pass``, why it was skipped, the first failure, or nothing if nothing ran."""
        verdicts = self._cells.get((server, client, verb, scheme), [])
        failures = [verdict for verdict in verdicts if verdict != "pass"]
        if failures and all(verdict.startswith(SKIPPED) for verdict in verdicts):
            return failures[0][:SHOWN]
        if failures:
            return f"{failures[0][:SHOWN]} ({len(failures)} of {len(verdicts)})"
        return "pass" if verdicts else ""


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(report: pytest.TestReport, call: pytest.CallInfo[None]) -> str:
    if report.passed:
        return "pass"
    reason = call.excinfo and call.excinfo.value
    said = str(reason).strip().partition("\n")[0].replace("|", "/")
    return f"{SKIPPED}{said}" if report.skipped else f"{type(reason).__name__}: {said}"
