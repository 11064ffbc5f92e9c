"""``casdk doctor``: checks a server step by step, from its address to one embedding, and stops at the first fault."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from casdk import TLS, Limits, Retry
from casdk._engine.process import engine
from casdk._transport.address import SCHEMES, Endpoint, counterpart, parse_address
from casdk._transport.channels import channel_of
from casdk._transport.channels.causes import BEHIND
from casdk._transport.codecs import read_status
from casdk._transport.credentials import TOKEN_VARIABLE
from casdk._transport.proxy import proxy_of
from casdk._transport.tokens import check_token
from casdk.cli.access import Access
from casdk.cli.exits import Exit, exit_of
from casdk.cli.greetings import addresses_that_work, greet
from casdk.cli.handshake import shake
from casdk.cli.route import Route
from casdk.cli.spaces import compare
from casdk.cli.trouble import Finding, TroubleError
from casdk.errors import (
    AuthError,
    CasdkError,
    ConfigError,
    DeadlineError,
    ItemError,
    OverloadedError,
    ProtocolMismatchError,
    ProxyError,
    ReplyError,
    TLSError,
    TransportError,
)
from casdk.models import Status

__all__ = ["examine", "report"]

SENTENCE: Final = "casdk doctor"


def report(url: str, access: Access, *, json: bool) -> int:
    """Print the finding of each step, and return the exit code of the first fault.

    Args:
        url: The server, or several with commas between them.
        access: Credential, TLS and timeouts to use.
        json: Print lines of JSON.
    """
    worst = Exit.OK
    urls = url.split(",")
    for one in urls:
        where = {"address": one} if len(urls) > 1 else {}
        if where and not json:
            print(one, flush=True)
        for finding in examine(one, access):
            _show(finding, where, json=json)
            worst = worst or finding.exit
    if len(urls) > 1 and not worst:
        finding = compare(urls, access)
        _show(finding, {"address": url}, json=json)
        worst = finding.exit
    return worst


def _show(finding: Finding, where: dict[str, str], *, json: bool) -> None:
    shown = msgspec.json.encode({**where, **msgspec.structs.asdict(finding)}).decode() if json else _line(finding)
    print(shown, flush=True)


def _line(finding: Finding) -> str:
    mark = {True: "ok", False: "WRONG", None: "-"}[finding.ok]
    line = f"{finding.step:<9}{mark:<6}{finding.detail}"
    return f"{line}\n{'cure':<9}{'':<6}{finding.cure}" if finding.cure else line


def examine(url: str, access: Access) -> Iterator[Finding]:
    """Yield the finding of each step; the first that shows a fault is the last, and says what to do.

    Args:
        url: The server's address.
        access: Credential, TLS and timeouts to use.
    """
    try:
        endpoint = parse_address(url)
        proxy_of(endpoint, None)
        if access.tls() is not None and not endpoint.tls:
            raise ConfigError(
                f"TLS options need a secure scheme: {counterpart(endpoint.scheme, tls=True)}://, not {endpoint.scheme}://"
            )
        access.timeouts()
    except ConfigError as error:
        yield TroubleError(str(error), "correct the command line", exit=Exit.USAGE).finding("address")
        return
    yield Finding(step="address", ok=True, detail=f"{endpoint.scheme} to {endpoint.host}, port {endpoint.port}")
    yield from _walk(endpoint, access)


def _walk(endpoint: Endpoint, access: Access) -> Iterator[Finding]:
    route = Route(endpoint, access.connect_timeout)
    tls = access.tls() or TLS()
    steps = [("dns", route.resolve), ("tcp", route.connect)]
    if route.proxy is not None:
        steps.append(("proxy", route.tunnel))
    if endpoint.tls:
        steps.append(("tls", lambda: shake(route, tls, lambda: addresses_that_work(route))))
    steps.append(("protocol", lambda: greet(route, tls)))
    for step, take in steps:
        try:
            detail = take()
        except TroubleError as trouble:
            yield trouble.finding(step)
            return
        except ConfigError as error:
            yield TroubleError(str(error), "correct --ca, --cert or --key", exit=Exit.USAGE).finding(step)
            return
        except OSError as error:
            yield TroubleError(f"the connection broke: {error.strerror or type(error).__name__}", BEHIND).finding(step)
            return
        yield Finding(step=step, ok=True, detail=detail)
    yield from _ask(endpoint, access, tls)


def _ask(endpoint: Endpoint, access: Access, tls: TLS) -> Iterator[Finding]:
    """Yield the findings of the steps that send requests.

    Both requests are sent before the first finding: only the reply to the second one shows for certain whether the
    credential is accepted, and the finding about the credential is to come first.
    """
    try:
        token, source = _credential(access)
    except ConfigError as error:
        yield TroubleError(str(error), "correct the credential", exit=Exit.USAGE).finding("auth")
        return
    dry_run = _dry_run(endpoint, access, tls, token)
    encode = _encode(endpoint, access) if dry_run.ok is not False or dry_run.step == "auth" else None
    if encode is not None and encode.ok and dry_run.step == "auth":
        # A gateway without this endpoint may answer as if the credential were refused, although it is accepted.
        dry_run = Finding(step="dry run", ok=None, detail="this gateway has none")
    for finding in (dry_run, encode):
        if finding is not None and finding.step not in ("dry run", "encode"):
            yield finding
            return
    yield Finding(step="auth", ok=True, detail=f"{source}, and not refused")
    yield dry_run
    if encode is not None:
        yield encode


def _credential(access: Access) -> tuple[str | None, str]:
    token, source = access.token(), f"the token of {access.credential_file}"
    if access.credential_file is None:
        token, source = os.environ.get(TOKEN_VARIABLE, ""), f"the token of {TOKEN_VARIABLE}"
        if TOKEN_VARIABLE not in os.environ:
            return None, "no token"
    return check_token(token), source


def _dry_run(endpoint: Endpoint, access: Access, tls: TLS, token: str | None) -> Finding:
    headers = () if token is None else (("authorization", token),)

    async def ask() -> bytes | None:
        channel = channel_of(endpoint)(endpoint, tls, access.timeouts(), Limits(), proxy_of(endpoint, None))
        try:
            return await channel.dry_run(headers)
        finally:
            await channel.aclose()

    try:
        # A channel belongs to the engine's loop.
        answer = asyncio.run_coroutine_threadsafe(ask(), engine().loop).result()
        status = None if answer is None else read_status(SCHEMES[endpoint.scheme].codec, answer)
    except CasdkError as error:
        return _explain(error, "dry run", endpoint, access)
    if status is None:
        return Finding(step="dry run", ok=None, detail="this gateway has none")
    return Finding(step="dry run", ok=True, detail="the flow is ready") if status.ok else _unready(status)


def _unready(status: Status) -> Finding:
    reason = status.description or status.name or "without a word"
    return TroubleError(
        f"the gateway is up, but the flow behind it is not ready: {reason}",
        "see that every executor runs, and what its log says",
        exit=Exit.SERVER,
    ).finding("dry run")


def _encode(endpoint: Endpoint, access: Access) -> Finding:
    try:
        with access.client(str(endpoint), retry=Retry(attempts=1)) as client:
            rows = client.encode([SENTENCE])
    except CasdkError as error:
        return _explain(error, "encode", endpoint, access)
    if not np.isfinite(rows).all():
        return TroubleError(
            "the embedding holds numbers that are none (NaN or infinite)",
            "see the model's weights and precision on the server; float16 overflows on some hardware",
            exit=Exit.SERVER,
        ).finding("encode")
    return Finding(step="encode", ok=True, detail=f"one embedding of {rows.shape[1]} numbers")


def _explain(error: CasdkError, step: str, endpoint: Endpoint, access: Access) -> Finding:
    """Return the finding of a request that failed, at the step that its error belongs to."""
    where, cure = _CURES.get(type(error), ("", "")) if not isinstance(error, ItemError) else ("", "")
    if isinstance(error, AuthError):
        cure = _cure_of_refusal(access)
    elif isinstance(error, ItemError):
        cure = "see that the flow has an encoder that answers at /encode"
    elif isinstance(error, ProtocolMismatchError):
        route = Route(endpoint, access.connect_timeout)
        with contextlib.suppress(TroubleError):
            route.resolve()
        working = addresses_that_work(route)
        cure = f"use {' or '.join(working)}" if working else cure
    elif error.code in UNKNOWN_THERE:
        kind = "a gRPC server" if endpoint.channel == "grpc" else "a server"
        where, cure = "protocol", f"{kind} is there, but no CLIP-as-service gateway: correct the port"
    elif isinstance(error, TransportError) and not cure:
        cure = "the gateway answers, but what is behind it does not: see that every executor runs, and its log"
    return TroubleError(str(error), cure or _SERVER_CURE, exit=exit_of(error)).finding(where or step)


UNKNOWN_THERE: Final = frozenset({"UNIMPLEMENTED", "404", "405"})
"""Codes of servers that do not have the endpoint of the request."""
_SERVER_CURE: Final = "the executor failed: see its log on the server"
_CURES: Final[dict[type[CasdkError], tuple[str, str]]] = {
    AuthError: ("auth", ""),
    TLSError: ("tls", "see --ca, --server-name and the server's certificate"),
    ProxyError: ("proxy", "see the proxy's own log, or name the server in NO_PROXY"),
    ProtocolMismatchError: ("protocol", "correct the scheme or the port"),
    OverloadedError: ("", "the server has too much to do: wait, or give it more executors"),
    DeadlineError: (
        "",
        "the connection is fine, but the flow is busy, stuck or still loading its model: see its log, or wait longer "
        "with --read-timeout",
    ),
    ReplyError: ("", "see the versions of jina and docarray there, and what stands before the server"),
    ConfigError: ("auth", "correct the credential"),
}


def _cure_of_refusal(access: Access) -> str:
    if access.credential_file is None and TOKEN_VARIABLE not in os.environ:
        return f"the server wants a credential, and none was given: set {TOKEN_VARIABLE} or give --credential-file"
    return "the token is wrong or has run out: get a new one (it is sent as it stands: with 'Bearer ' if that is in it)"
