import contextlib
import socket
import threading

import pytest
from casdk import CasdkError, Client, RejectedError, Retry

TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TEXTS = [f"{number} " + "long " * 16_000 for number in range(80)]


def refuse(listener):
    """Answer the head of each request, and close with its body unread, which resets the connection."""
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:  # it was shut down
            return
        with connection, contextlib.suppress(ConnectionError):
            seen = b""
            while b"\r\n\r\n" not in seen and (piece := connection.recv(1000)):
                seen += piece
            connection.sendall(TOO_LARGE)


def test_nothing_is_written_after_the_end(caplog):
    """asyncio would log "socket.send() raised exception" for what is written on; six megabytes are many slices."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse, args=(listener,))
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # The answer says that it is too large; whether it is read before the reset throws it away, the system decides.
        with Client(address, retry=Retry(attempts=1), timeout=20) as client, pytest.raises(CasdkError):
            client.encode(TEXTS, batch_size=len(TEXTS))
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert [record for record in caplog.records if record.name == "asyncio"] == []


def test_an_answer_ends_the_request():
    """A server that has answered need not read on; nobody waits until it does."""
    served = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer():
            connection, _ = listener.accept()
            served.append(connection)
            while b"\r\n\r\n" not in connection.recv(1000):
                pass
            connection.sendall(TOO_LARGE)

        thread = threading.Thread(target=answer)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = Client(address, retry=Retry(attempts=1), timeout=20)
        with client, pytest.raises(RejectedError, match="HTTP 413"):
            client.encode(["long " * 3_000_000])
        thread.join()
        served[0].close()
