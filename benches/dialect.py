"""A server of OpenAI's dialect, so that other clients get the same rows: ``python dialect.py ADDRESS``.

It answers ``POST /v1/embeddings`` with the rows that the http server at ADDRESS gives for the same texts. Each text is
asked for there once; after that a reply is put together from rows that are JSON already. Prints its port.
"""

import asyncio
import json
import sys
import urllib.request

HEAD_END = b"\r\n\r\n"
ROWS: dict[str, bytes] = {}
"""The row of each text that was asked for so far, as JSON."""


def learn(address: str, texts: list[str]) -> None:
    """Ask the http server for the rows of texts that nobody asked for before."""
    docs = [{"id": str(number), "text": text} for number, text in enumerate(texts)]
    message = json.dumps({"data": docs, "exec_endpoint": "/encode"}).encode()
    request = urllib.request.Request(f"{address}/post", message, {"content-type": "application/json"})
    with urllib.request.urlopen(request) as reply:
        answered = json.load(reply)["data"]
    ROWS.update((doc["text"], json.dumps(doc["embedding"], separators=(",", ":")).encode()) for doc in answered)


def answer(address: str, body: bytes) -> bytes:
    """Return the reply to a request's body."""
    texts = json.loads(body)["input"]
    if missing := [text for text in texts if text not in ROWS]:
        learn(address, missing)
    rows = b",".join(
        b'{"object":"embedding","index":%d,"embedding":%b}' % (index, ROWS[text]) for index, text in enumerate(texts)
    )
    body = b'{"object":"list","data":[%b],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}' % rows
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


class Connection(asyncio.Protocol):
    """One keep-alive connection, whose requests say how long they are."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(HEAD_END)) >= 0:
            lines = bytes(self._received[:end]).lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            whole = end + len(HEAD_END) + length
            if len(self._received) < whole:
                return
            body = bytes(self._received[whole - length : whole])
            del self._received[:whole]
            self._transport.write(answer(self._address, body))


async def main(address: str) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(address), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
