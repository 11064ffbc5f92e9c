"""The page about a run: one file, its curve and its errors, whatever these are called."""

import re
from xml.etree import ElementTree

import pytest
from casdk import BulkError, Client, ConfigError, InputTypeError
from casdk.bulk.manifest import Manifest, Settings
from casdk.bulk.report import LISTED_ERRORS, MOST_BINS, Report
from casdk.testing import FaultServer

MANIFEST = Manifest(settings=Settings(shard_rows=10, batch_size=2, dtype="float32", normalize=False))


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def curve_of(page):
    [points] = re.findall(r'points="([^"]*)"', page)
    return [tuple(map(float, point.split(","))) for point in points.split()]


def test_a_long_run_has_as_many_points_as_a_short_one(tmp_path):
    clock = Clock()
    report = Report(tmp_path / "report.html", "rows", clock)
    for second in range(5000):
        clock.now = float(second)
        report.add(10 if second < 2500 else 20, [])
    report.write(MANIFEST, "finished")
    points = curve_of((tmp_path / "report.html").read_text())
    assert MOST_BINS / 2 <= len(points) <= MOST_BINS
    heights = [y for _, y in points]
    first, last = heights[len(points) // 4], heights[len(points) * 3 // 4]
    assert first > last  # y points down
    assert "75,000" in (tmp_path / "report.html").read_text()


def test_errors_are_counted_and_the_first_ones_listed(tmp_path):
    report = Report(tmp_path / "report.html", "rows")
    report.add(1500, [(f"item {number}", "RejectedError: no") for number in range(1500)])
    report.add(1, [("<script>alert(1)</script>", 'FileMissingError: "&" \udcff')])
    report.write(MANIFEST, "stopped: <b>")
    page = (tmp_path / "report.html").read_text()
    assert "<th>RejectedError</th><td>1,500</td>" in page
    assert page.count("RejectedError: no") == LISTED_ERRORS
    assert f"and {1501 - LISTED_ERRORS} more" in page
    assert "stopped: &lt;b&gt;" in page


def test_nothing_of_a_name_is_markup(tmp_path):
    report = Report(tmp_path / "report.html", "<rows>")
    report.add(1, [("<script>alert(1)</script>", 'FileMissingError: "&" \udcff')])
    report.write(MANIFEST, "finished")
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page
    assert "http" not in page
    root = ElementTree.fromstring(page.partition("\n")[2].replace('<meta charset="utf-8">', ""))
    assert "<script>alert(1)</script>" in "".join(root.itertext())
    assert [one.text for one in root.iter("h1")] == ["<rows>"]


def test_it_is_written_at_the_end_and_where_a_run_stops(tmp_path):
    with FaultServer(width=8) as server, Client(server.address("grpc")) as client:
        client.encode_to(tmp_path / "rows", ["a", "", "b"], report=tmp_path / "report.html")
        page = (tmp_path / "report.html").read_text()
        assert "<p>finished</p>" in page
        assert "EmptyItemError" in page
        with pytest.raises(BulkError):
            client.encode_to(tmp_path / "other", ["a", ""], errors="raise", report=str(tmp_path / "report.html"))
        assert "<p>stopped: item 1" in (tmp_path / "report.html").read_text()
        with pytest.raises(ConfigError, match="there is no folder"):
            client.encode_to(tmp_path / "other", ["a"], report=tmp_path / "none" / "report.html")
        with pytest.raises(InputTypeError, match="report must be a path"):
            client.encode_to(tmp_path / "other", ["a"], report=7)
        with pytest.raises(ConfigError, match="is a folder"):
            client.encode_to(tmp_path / "other", ["a"], report=tmp_path)


def test_a_page_that_cannot_be_written_is_an_error(tmp_path):
    folder = tmp_path / "pages"
    folder.mkdir()

    def items():
        yield "a"
        folder.rmdir()

    with FaultServer(width=8) as server, Client(server.address("grpc")) as client:
        with pytest.raises(BulkError, match=r"_report\.html\.tmp: No such file.*rows holds 1 rows"):
            client.encode_to(tmp_path / "rows", items(), report=folder / "report.html")
        assert client.encode_to(tmp_path / "rows", ["a"]).encoded == 0
