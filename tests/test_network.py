import socket
import threading

import pytest
from casdk import CasdkError, Client, Retry
from casdk._logging import flush

TEXTS = [f"{number} " + "long " * 16_000 for number in range(80)]


def refuse(listener):
    """Answer the head of a request, and close with its body unread, which resets the connection."""
    connection, _ = listener.accept()
    with connection:
        seen = b""
        while b"\r\n\r\n" not in seen:
            seen += connection.recv(1000)
        connection.sendall(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")


def test_nothing_is_written_after_the_end(caplog):
    """asyncio would log "socket.send() raised exception" for what is written on; six megabytes are many slices."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(address, retry=Retry(attempts=1), timeout=20) as client, pytest.raises(CasdkError):
            client.encode(TEXTS, batch_size=len(TEXTS))
        thread.join()
    assert flush(20)
    assert [record for record in caplog.records if record.name == "asyncio"] == []
