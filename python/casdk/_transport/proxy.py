"""Finds the proxy of a server, by one rule for all six schemes; the connectors, httpx and the doctor use it."""

from __future__ import annotations

from urllib.parse import urlsplit

from casdk._transport.address import Endpoint
from casdk.errors import ConfigError

__all__ = ["check_proxy", "proxy_of"]


def proxy_of(endpoint: Endpoint, explicit: str | None) -> str | None:
    """Return the proxy's URL, which may hold a password.

    ``HTTPS_PROXY`` is for the secure schemes and ``HTTP_PROXY`` for the plain ones, ``ALL_PROXY`` for both if the other
    is not set; ``NO_PROXY`` exempts hosts. Names in lower case win, as in other programs.

    Args:
        endpoint: The server.
        explicit: The client's ``proxy=``; ``""`` means none, whatever the environment says.
    """
    if explicit is not None:
        return explicit or None
    from urllib import request  # imported late, since it would be half of this package's import time

    found = request.getproxies_environment()
    proxy = found.get("https" if endpoint.tls else "http") or found.get("all")
    if not proxy or _bypassed(endpoint.authority, found):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _bypassed(authority: str, found: dict[str, str]) -> bool:
    from urllib import request

    # typeshed declares it for macOS only
    return bool(request.proxy_bypass_environment(authority, found))  # type: ignore[attr-defined]


def check_proxy(proxy: object) -> str | None:
    """Return the checked ``proxy=`` of a client.

    Raises:
        ConfigError: It cannot work. The message does not show it, since it may contain a password.
    """
    if proxy is None or proxy == "":
        return proxy if proxy is None else ""
    if not isinstance(proxy, str):
        raise ConfigError(f"proxy must be a str like 'http://host:port', not {type(proxy).__name__}")
    try:
        parts = urlsplit(proxy)
        usable = parts.scheme == "http" and bool((parts.hostname or "").encode("idna")) and parts.port is not None
        proxy.encode()
    except ValueError:
        usable = False
    if not usable:
        raise ConfigError("proxy must be of the form http://[user:password@]host:port (it is not shown here)")
    return proxy
