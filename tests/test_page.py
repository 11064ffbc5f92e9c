"""The Client API page of `clip_client`: its examples, executed in its order with casdk's imports, on three schemes.

``page.md`` holds the page's code blocks. All that a run changes in them stands in `substitutes`: what they import from,
addresses, and ellipses. The outputs on the page were made by CLIP's weights from pictures we do not have, so they are
compared in form, and in every value that does not depend on these. Not run: the two lines that start gunicorn.
"""

from __future__ import annotations

import ast
import asyncio
import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import pytest
from casdk.server import Served, serve
from PIL import Image

PICTURES = ("apple.png", "favicon.png", "test-1.jpeg", *(f".github/README-img/{n}.png" for n in ("rerank", 4, 9)))


class Block(NamedTuple):
    language: str
    code: str


def blocks() -> list[Block]:
    """Return the page's blocks in its order; what follows two tabs is there once for each of them."""
    page = (Path(__file__).parent / "page.md").read_text()
    start, *tabs = re.split(r"^````\{tab\}.*\n", page, flags=re.MULTILINE)
    *tabs, last = tabs
    last, rest = last.split("\n````\n", 1)
    shared, rest = rest.split("\n## Indexing\n", 1)
    return _read(start + "".join(tab.removesuffix("````\n\n") + shared for tab in [*tabs, last]) + rest)


def _read(page: str) -> list[Block]:
    fence = re.compile(r"^```(?:\{code-block\} )?(\w+)\n(?:---\n.*?---\n)?(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [Block(*found) for found in fence.findall(page)]


def substitutes(served: Served, scheme: str, site: str) -> dict[str, str]:
    """Return what differs from the page."""
    plain, secure = served.address(scheme), served.address(f"{scheme}s")
    return {
        "from clip_client import": "from casdk import",
        "from docarray import Document\n": "from casdk import Document, DocumentArray\n",
        "grpc://0.0.0.0:23456": plain,
        "grpc://0.0.0.0:51001": plain,
        "grpcs://demo-cas.jina.ai:2096": secure,
        "http://demo-cas.jina.ai:51000": served.address("http"),
        "https://demo-cas.jina.ai:8443": served.address("http"),
        "https://clip-as-service.jina.ai/_static": site,
        "https://docarray.jina.ai/_static": site,
        "Client(...)": f"Client({plain!r})",
        "uri=...": "uri='apple.png'",
        "100_000": "1_000",
        "sleep(3)": "sleep(0.1)",
        "in big_list": "in da[:3]",
    }


@pytest.fixture(params=["grpc", "http", "websocket"])
def flow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Served, str]]:
    """An encoder and an indexer that holds nothing yet, and the scheme to speak to them."""
    schemes = sorted({request.param, f"{request.param}s", "http"})
    with serve(schemes=schemes, fetch_uris=True) as served:
        # The page trusts its demo server by the system's store.
        monkeypatch.setenv("SSL_CERT_FILE", str(served.ca))
        monkeypatch.delenv("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", raising=False)
        yield served, request.param


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, web: Any) -> str:
    """The folder the page's reader works in, also as a web site; returns its URL."""
    for number, name in enumerate(PICTURES):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 256, (40, 50, 3), np.uint8)).save(path)
    (tmp_path / "album").mkdir()
    for number in range(3):
        shutil.copy(tmp_path / "apple.png", tmp_path / "album" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return str(web(tmp_path / "favicon.png")).removesuffix("/favicon.png")


@pytest.mark.filterwarnings("ignore:(?s).*on_event is deprecated:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # the page's open(...).read()
def test_the_page(flow, site, monkeypatch, capsys):
    served, scheme = flow
    monkeypatch.setenv("COLUMNS", "120")
    names: dict[str, Any] = {"__name__": "page"}
    clients, shown, reply, seen = [], "", {}, []
    try:
        for number, (language, code) in enumerate(blocks()):
            for theirs, ours in substitutes(served, scheme, site).items():
                code = code.replace(theirs, ours)
            if language == "python":
                exec(compile(code, f"page.md, block {number}", "exec"), names)
                clients.append(names["c"])
                if "app" in names:
                    asyncio.run(_ask(names.pop("app")))
                shown = capsys.readouterr().out
            elif code.startswith("curl"):
                reply = _post(code)
            elif language != "bash":
                seen.append(_compare(code, shown, names, reply, capsys))
    finally:
        for client in clients:
            client.close()
    assert seen == [
        "rows",
        "summary",
        "rows",
        "ranking",
        "ranking",
        "summary",
        "hits",
        "profile",
        "reply",
        "embeddings",
    ]


def _compare(output: str, shown: str, names: dict[str, Any], reply: dict[str, Any], capsys: Any) -> str:
    """Hold what the page shows against what came; returns what it was."""
    if output.startswith("{"):
        return _compare_reply(json.loads(output.replace(" ...,", "")), reply)
    if output.startswith("[["):
        lines = output.split("\n")
        if "'" not in lines[0]:
            print(shown.strip() or names["r"].embeddings)  # the page shows .embeddings, but prints nothing
            return _compare_rows(output, capsys.readouterr().out, names["r"])
        return (_compare_hits if "value" in output else _compare_ranking)(ast.literal_eval(output), shown, names)
    if output.startswith("["):
        rows = [document["embedding"] for document in reply["data"]]
        assert len(rows) == len(output.splitlines())
        assert all(isinstance(number, float) for row in rows for number in row)
        return "embeddings"
    if "Roundtrip" in output:
        assert _without_numbers(shown) == _without_numbers(output)
        return "profile"
    names["r"].summary()
    return _compare_tables(output, capsys.readouterr().out)


def _without_numbers(text: str) -> list[str]:
    return [re.sub(r"<?-?\d+\.?\d*(e-?\d+)?", "N", line).rstrip() for line in text.splitlines()]


def _compare_rows(output: str, shown: str, result: Any) -> str:
    """Every row is printed as the page prints rows."""
    forms = [
        re.findall(r"\[([^\[\]]+)\]", " ".join("\n".join(_without_numbers(text)).split())) for text in (output, shown)
    ]
    assert {form.strip() for form in forms[0]} == {form.strip() for form in forms[1]} == {"N N N ... N N N"}
    assert len(forms[1]) == len(result)
    return "rows"


def _compare_tables(output: str, shown: str) -> str:
    """The same two tables; rows about what casdk leaves in a Document as docarray does are the same rows."""
    theirs, ours = (_cells(text) for text in (output, shown))
    for name in ("Length", "Homogenous Documents", "Attribute", "embedding", "id", "text", "uri"):
        assert ours[name] == theirs[name]
    frames = [[line for line in text.splitlines() if "Summary" in line] for text in (output, shown)]
    assert [line.strip("╭─╮ ") for line in frames[0]] == [line.strip("╭─╮ ") for line in frames[1]]
    # docarray guesses each mime_type, and lets go of blob and tensor; casdk changes nothing but the embedding.
    assert ours.keys() - theirs.keys() == {"3 Documents have attributes", "blob", "tensor"}
    return "summary"


def _cells(text: str) -> dict[str, list[str]]:
    rows = [re.split(r"\s{2,}", line.strip("│ ")) for line in text.splitlines() if line.startswith("│")]
    return {name: values for name, *values in rows if values}


def _compare_ranking(output: Any, shown: str, names: dict[str, Any]) -> str:
    texts, scores = ast.literal_eval(shown)
    (document,) = names["r"]
    assert document is names["d"]
    if document.uri:
        assert sorted(texts) == sorted(output[0])
    assert texts == document.matches.texts
    assert len(scores) == len(texts)
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1)
    return "ranking"


def _compare_hits(output: Any, shown: str, names: dict[str, Any]) -> str:
    texts, scores = ast.literal_eval(shown)
    assert texts == output[0]
    assert [list(score) for score in scores] == [list(score) for score in output[1]]
    assert scores[0]["value"] < scores[1]["value"]
    return "hits"


def _compare_reply(output: dict[str, Any], reply: dict[str, Any]) -> str:
    assert reply.keys() == output.keys()
    assert reply["header"].keys() == output["header"].keys()
    assert [route.keys() for route in reply["routes"]] == [route.keys() for route in output["routes"]]
    assert output["data"][0].keys() == reply["data"][0].keys()
    return "reply"


async def _ask(app: Any) -> None:
    """Start the web application of the page, and ask it many times at once."""
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://app") as http:
        answers = await asyncio.gather(*(http.post("/") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}


def _post(command: str) -> dict[str, Any]:
    """Do what a curl command of the page does."""
    url = re.search(r"curl -X POST (\S+)", command)[1]
    body = re.search(r"-d '(.*)'", command)[1]
    for name in re.findall(r"\$\( base64 (\S+)\)", body):
        body = body.replace(f"""'"$( base64 {name})"'""", base64.b64encode(Path(name).read_bytes()).decode())
    answer = httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=60).raise_for_status()
    assert all(document["embedding"] for document in answer.json()["data"])
    return answer.json()
