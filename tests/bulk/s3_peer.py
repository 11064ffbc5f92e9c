"""A server that speaks S3 on the loopback, moto's, in a process of its own: prints its port, and ends with its parent.

Standard error has a line for each request, as ``"PUT /bucket/key HTTP/1.1" 200``.
"""

import sys

from moto.server import ThreadedMotoServer


def main():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    print(port, flush=True)
    sys.stdin.read()
    server.stop()


if __name__ == "__main__":
    main()
