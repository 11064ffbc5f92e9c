"""nginx, which stands before a server."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Self

from commands import CommandError, run
from debian import library_path, unpack
from environment import PLATFORM, UnavailableError, cached, once

STOPS_WITHIN = 30.0


@cache
def nginx_program() -> tuple[Path, dict[str, str]]:
    """Return nginx, this machine's own or else Debian's, unpacked, and the environment to start it in.

    Raises:
        UnavailableError: It could not be had.
    """
    installed = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if installed is not None:
        return Path(installed), dict(os.environ)
    home = cached("nginx", PLATFORM)
    program = home / "debian" / "usr" / "sbin" / "nginx"
    try:
        with once("nginx", home, "packages") as missing:
            if missing:
                shutil.rmtree(home / "debian", ignore_errors=True)
                unpack(home / "debian", "nginx")
        variables = {**os.environ, **library_path(home)}
        run(str(program), "-v", env=variables)
    except (OSError, CommandError) as error:
        raise UnavailableError(f"no nginx here: {error}") from error
    return program, variables


LOCATIONS = {
    "grpc": "grpc_pass grpc://{upstream};",
    "http": 'proxy_pass http://{upstream}; proxy_http_version 1.1; proxy_set_header Connection "";',
    "websocket": "proxy_pass http://{upstream}; proxy_http_version 1.1; "
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";',
}
"""What stands in each scheme's `location`, as nginx's manual has it."""


class Nginx:
    """nginx before a server, a port for each scheme.

    Args:
        upstreams: Host and port of the server by scheme.
        directives: More of what stands in `http`.
    """

    def __init__(self, upstreams: Mapping[str, str], *directives: str) -> None:
        program, variables = nginx_program()
        self._temporary = tempfile.TemporaryDirectory(prefix="casdk-interop-")
        self._work = Path(self._temporary.name)
        self._listeners = {scheme: socket.create_server(("127.0.0.1", 0)) for scheme in upstreams}
        (self._work / "nginx.conf").write_text(self._configuration(upstreams, directives))
        # It takes over these as from an nginx before it: so who connects early has to wait, no more.
        fds = [listener.fileno() for listener in self._listeners.values()]
        self._process = subprocess.Popen(
            [program, "-p", self._work, "-c", self._work / "nginx.conf", "-e", self._work / "error.log"],
            env=variables | {"NGINX": "".join(f"{fd};" for fd in fds)},
            pass_fds=fds,
            stdin=subprocess.DEVNULL,
        )

    def address(self, scheme: str) -> str:
        """Return the address of a scheme."""
        return f"{scheme}://127.0.0.1:{self._listeners[scheme].getsockname()[1]}"

    def reload(self) -> None:
        """Have it read its configuration again: it starts new workers, and the old ones end their connections."""
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> list[str]:
        """Let it finish, and return the path and the status of each request that it answered."""
        self._process.send_signal(signal.SIGQUIT)
        assert self._process.wait(STOPS_WITHIN) == 0
        return (self._work / "access.log").read_text().splitlines()

    def said(self, words: str) -> bool:
        """Whether some words stand in its log."""
        return words in (self._work / "error.log").read_text()

    def _configuration(self, upstreams: Mapping[str, str], directives: tuple[str, ...]) -> str:
        servers = "\n".join(self._server(scheme, upstream) for scheme, upstream in upstreams.items())
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "\n".join(f"{kind}_temp_path {self._work / kind};" for kind in kinds)
        # As root its workers would be somebody who may not write to these paths.
        user = "user root root;" if os.geteuid() == 0 else ""
        return f"""
            daemon off; {user} worker_processes 1; pid {self._work / "pid"};
            error_log {self._work / "error.log"} notice;
            events {{ worker_connections 256; }}
            http {{
                log_format plain '$request_uri $status';
                access_log {self._work / "access.log"} plain;
                {paths}
                {" ".join(directives)}
                {servers}
            }}
        """

    def _server(self, scheme: str, upstream: str) -> str:
        host, port = self._listeners[scheme].getsockname()
        listen = f"listen {host}:{port}{' http2' if scheme == 'grpc' else ''};"
        return f"server {{ {listen} location / {{ {LOCATIONS[scheme].format(upstream=upstream)} }} }}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(STOPS_WITHIN)
        for listener in self._listeners.values():
            listener.close()
        self._temporary.cleanup()
