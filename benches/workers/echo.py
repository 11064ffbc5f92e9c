"""The floor's peer: for every so many bytes that come in, so many go out: ``python echo.py IN OUT``."""

import socket
import sys


def main() -> None:
    asked, answered = map(int, sys.argv[1:])
    sock = socket.create_server(("127.0.0.1", 0))
    print(sock.getsockname()[1], flush=True)
    line, _ = sock.accept()
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer, reply = memoryview(bytearray(asked)), bytes(answered)
    while True:
        got = 0
        while got < asked:
            count = line.recv_into(buffer[got:])
            if not count:
                return
            got += count
        line.sendall(reply)


if __name__ == "__main__":
    main()
