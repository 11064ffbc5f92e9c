"""The public values of calls: their fields, their checks and their text form."""

import pickle
from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from casdk.documents import Document, DocumentArray
from casdk.errors import DeadlineError, FileMissingError, InputTypeError, ReplyError
from casdk.models import EncodeResult, Header, Image, Profile, Response, Route, Status, Text, Timings
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow
from rich.console import Console

MS = 1_000_000
NOON = 1_700_000_000_000_000_000


class TestText:
    def test_holds_its_sentence(self):
        assert Text("cat.png").text == "cat.png"
        assert Text("a") == Text("a")
        assert hash(Text("a")) == hash(Text("a"))
        assert repr(Text("a")) == "Text(text='a')"

    @pytest.mark.parametrize("wrong", [b"a", 1, None, ["a"], Path("a")])
    def test_takes_a_str(self, wrong):
        with pytest.raises(InputTypeError, match=f"Text takes a str, not {type(wrong).__name__}"):
            Text(wrong)

    def test_cannot_be_changed(self):
        with pytest.raises(AttributeError):
            Text("a").text = "b"  # type: ignore[misc]


class TestImage:
    @pytest.mark.parametrize(
        ("source", "shown"),
        [
            ("cat", "Image('cat')"),
            (Path("cat.png"), "Image(PosixPath('cat.png'))"),
            (b"secret", "Image(<6 bytes>)"),
            (np.zeros((2, 3, 3), np.uint8), "Image(uint8[2, 3, 3])"),
            ("data:image/png;base64," + "A" * 99, f"Image('data:image/png;base64,{'A' * 37}…)"),
        ],
    )
    def test_holds_its_source(self, source, shown):
        image = Image(source)
        assert image.source is source
        assert repr(image) == shown

    def test_takes_pillow(self):
        picture = Pillow.new("RGB", (2, 2))
        assert Image(picture).source is picture
        assert repr(Image(picture)).startswith("Image(<PIL.Image.Image")

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (1, "not int"),
            (None, "not NoneType"),
            (["a.png"], "not list"),
            (np.zeros((2, 2), np.uint8), r"pixels \[H, W, C\] uint8, not \[2, 2\] uint8"),
            (np.zeros((2, 2, 3), np.float32), r"not \[2, 2, 3\] float32"),
            (Text("a"), "not Text"),
        ],
    )
    def test_refuses(self, wrong, message):
        with pytest.raises(InputTypeError, match=message):
            Image(wrong)


class TestEncodeResult:
    def test_repr_and_ok(self):
        rows = np.zeros((2, 3), np.float32)
        good = EncodeResult(embeddings=rows)
        assert good.ok
        bad = EncodeResult(embeddings=rows, errors=(FileMissingError(1, "a.png", "is not there"),))
        assert not bad.ok
        assert repr(bad).startswith("EncodeResult(embeddings=float32[2, 3], errors=(FileMissingError(")
        stopped = EncodeResult(embeddings=rows, stopped=DeadlineError("late", done=2, total=3))
        assert not stopped.ok
        assert repr(stopped).endswith("stopped=DeadlineError('late (2 of 3 items were done)'))")


class TestResponse:
    def test_defaults(self):
        response = Response(header=Header(request_id="0"))
        assert response.ok
        assert response.status == Status()
        assert response.routes == ()
        assert response.parameters == {}
        assert type(response.docs) is DocumentArray

    def test_docs_where_upstream_has_them(self):
        response = Response(header=Header(request_id="0"), docs=DocumentArray([Document(text="a")]))
        assert response.data.docs is response.docs
        assert pickle.loads(pickle.dumps(response)).docs == response.docs

    def test_an_error(self):
        status = Status(code=1, description="ValueError('no')", name="ValueError", args=("no",), executor="clip_t")
        response = Response(header=Header(request_id="0"), status=status)
        assert not response.ok
        assert "stacks" not in msgspec.to_builtins(status)

    def test_route_seconds(self):
        assert Route(executor="a", start_ns=NOON, end_ns=NOON + 5 * MS).seconds == pytest.approx(0.005)
        assert Route(executor="a", start_ns=NOON).seconds == 0.0
        assert Route(executor="a").seconds == 0.0


def respond(roundtrip, gateway, *executors):
    """A response after ``roundtrip`` seconds, with routes ``(name, start, end)`` in milliseconds after noon."""
    routes = tuple(
        Route(executor=name, start_ns=NOON + int(start * MS), end_ns=NOON + int(end * MS))
        for name, start, end in [("gateway", 0, gateway), *executors]
    )
    timings = Timings.between(0, 0, 0, 0, roundtrip, roundtrip, routes)
    return Response(header=Header(request_id="0"), routes=routes, timings=timings)


class TestTimings:
    def test_each_part(self):
        routes = respond(0, 4, ("clip_t", 0.5, 3), ("indexer", 3, 3.25)).routes
        timings = Timings.between(1.0, 1.5, 1.75, 1.8, 1.9, 1.95, routes)
        assert (timings.queued, timings.packed, timings.sent) == pytest.approx((0.5, 0.25, 0.05))
        assert timings.network == pytest.approx(0.1 - 0.004)
        assert timings.server == pytest.approx(0.004)
        assert timings.gateway == pytest.approx(0.004 - 0.00275)
        assert dict(timings.executors) == pytest.approx({"clip_t": 0.0025, "indexer": 0.00025})
        assert timings.scanned == pytest.approx(0.05)

    def test_a_server_that_does_not_tell(self):
        timings = Timings.between(0, 1, 2, 3, 5, 6, ())
        assert (timings.network, timings.server, timings.executors) == (2, 0, ())
        assert timings.total == 6

    @given(
        st.lists(st.floats(0, 1e4), min_size=6, max_size=6).map(sorted),
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=5),
    )
    def test_parts_are_the_whole(self, stamps, spans):
        executors = [(f"e{n}", start, start + length) for n, (start, length) in enumerate(spans)]
        timings = Timings.between(*stamps, respond(0, 40, *executors).routes)
        assert timings.total == pytest.approx(stamps[-1] - stamps[0], abs=1e-9)


def printed(profile):
    out = StringIO()
    Console(file=out, width=80).print(profile.tree())
    return [line.rstrip() for line in out.getvalue().splitlines()]


class TestProfile:
    def test_the_page(self):
        profile = Profile.from_response(respond(0.016, 4, ("clip_t", 0, 4)))
        assert printed(profile) == [
            " Roundtrip  16ms  100%",
            "├──  Client-server network  12ms  75%",
            "└──  Server  4ms  25%",
            "    ├──  Gateway-CLIP network  0ms  0%",
            "    └──  CLIP model  4ms  100%",
        ]

    def test_reads_like_a_dict(self):
        profile = Profile.from_response(respond(0.016, 4, ("clip_t", 0.5, 3.5)))
        assert list(profile) == list(profile.keys())
        assert list(profile.keys()) == [
            "Roundtrip",
            "Client-server network",
            "Server",
            "Gateway-CLIP network",
            "CLIP model",
        ]
        assert list(profile.values()) == pytest.approx([16, 12, 4, 1, 3])
        assert dict(profile) == dict(profile.items())
        assert profile["CLIP model"] == pytest.approx(3)
        assert "Server" in profile
        assert "Nonsense" not in profile
        assert len(profile) == 5
        with pytest.raises(KeyError, match="Nonsense"):
            profile["Nonsense"]

    def test_every_figure_has_a_name(self):
        profile = Profile.from_response(respond(0.016, 4, ("clip_t", 0.5, 3), ("indexer", 3, 3.25)))
        assert (profile.roundtrip, profile.network, profile.server) == pytest.approx((16, 12, 4))
        assert profile.gateway == pytest.approx(1.25)
        assert [name for name, _ in profile.executors] == ["clip_t", "indexer"]
        assert profile["indexer"] == pytest.approx(0.25)

    def test_an_executor_of_a_figures_name_hides_no_figure(self):
        profile = Profile.from_response(respond(0.016, 4, ("clip_t", 0.5, 3), ("Server", 3, 3.25)))
        assert profile["Server"] == pytest.approx(4)
        assert profile.executors[1] == ("Server", pytest.approx(0.25))

    def test_all_executors_and_small_times(self):
        profile = Profile.from_response(respond(0.0034, 3, ("clip_t", 0.42, 2.42), ("indexer", 2.42, 2.99)))
        assert printed(profile) == [
            " Roundtrip  3ms  100%",
            "├──  Client-server network  0.40ms  12%",
            "└──  Server  3ms  88%",
            "    ├──  Gateway-CLIP network  0.43ms  14%",
            "    ├──  CLIP model  2ms  67%",
            "    └──  indexer  0.57ms  19%",
        ]

    def test_no_time_at_all(self):
        routes = (Route(executor="gateway"),)
        timings = Timings.between(0, 0, 0, 0, 0.001, 0.001, routes)
        profile = Profile.from_response(Response(header=Header(request_id="0"), routes=routes, timings=timings))
        assert profile.executors == ()
        assert profile["CLIP model"] == 0.0
        assert printed(profile) == [
            " Roundtrip  1ms  100%",
            "├──  Client-server network  1ms  100%",
            "└──  Server  0ms  0%",
            "    └──  Gateway-CLIP network  0ms  0%",
        ]
        tiny = Profile(roundtrip=0.004, network=0.0, server=0.0, gateway=0.0, executors=())
        assert "<0.01ms" in printed(tiny)[0]

    def test_no_routes(self):
        with pytest.raises(ReplyError, match="no routes"):
            Profile.from_response(Response(header=Header(request_id="0")))

    def test_names_are_no_markup(self):
        profile = Profile.from_response(respond(0.01, 3, ("clip_t", 0, 1), ("[/red]", 1, 2)))
        assert any("[/red]" in line for line in printed(profile))

    @given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=5))
    def test_executors_side_by_side_count_once(self, spans):
        """The gateway's own time is what no executor fills, counted millisecond by millisecond."""
        executors = [(f"e{n}", start, start + length) for n, (start, length) in enumerate(spans)]
        busy = {tick for _, start, end in executors for tick in range(start, end)}
        profile = Profile.from_response(respond(0.1, 40, *executors))
        assert profile.gateway == pytest.approx(40 - len(busy))
        assert profile.network == pytest.approx(60)
        assert [time for _, time in profile.executors] == pytest.approx([length for _, length in spans])

    def test_print(self, capsys):
        Profile.from_response(respond(0.016, 4, ("clip_t", 0, 4))).print()
        assert "Roundtrip" in capsys.readouterr().out
