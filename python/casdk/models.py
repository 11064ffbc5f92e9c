"""The public values of calls besides Documents and arrays: items that go in, results and responses that come back.

Users of `Client` make `Text` and `Image` and get the other classes. The structs are frozen and do no I/O.
"""

from __future__ import annotations

import os
from collections.abc import ItemsView, Iterator, KeysView, Mapping, ValuesView
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from casdk._wording import class_name, message_of
from casdk.documents import DocumentArray
from casdk.errors import CasdkError, InputTypeError, ItemError, ReplyError

if TYPE_CHECKING:
    from PIL.Image import Image as PILImage
    from rich.tree import Tree

    from casdk._columns import ArrowArray
else:
    PILImage = Any  # so that annotations can be read at run time, as by `help`, if Pillow is not installed

__all__ = ["EncodeResult", "Header", "Image", "Profile", "Response", "Route", "Status", "Text", "Timings"]

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | NDArray[np.uint8] | PILImage"


class Text(msgspec.Struct, frozen=True):
    """An item that is always a sentence: ``Text('cat.png')`` is not read as a path.

    Attributes:
        text: The sentence.

    Raises:
        InputTypeError: ``text`` is not a ``str``.

    Examples:
        >>> from casdk import Text
        >>> Text("cat.png").text
        'cat.png'
    """

    text: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise InputTypeError(f"Text takes a str, not {type(self.text).__name__}")


class Image(msgspec.Struct, frozen=True, eq=False):
    """An item that is always an image: ``Image('cat')`` is read as a path.

    Attributes:
        source: A path; a ``file:``, ``http(s):`` or ``data:`` URI; the bytes of an image file; pixels ``[H, W, C]``
            uint8 with C 1, 3 or 4, as an ndarray, a torch tensor or any other array; or a ``PIL.Image``.

    Raises:
        InputTypeError: ``source`` is none of these.

    Examples:
        >>> from casdk import Image
        >>> Image("cat")
        Image('cat')
    """

    source: ImageSource

    def __post_init__(self) -> None:
        try:
            self._check()
        except InputTypeError:
            raise
        except Exception as error:  # a class of the caller's own may raise anything
            reason = f"Image cannot read its source: {class_name(error)}: {message_of(error)}"
            raise InputTypeError(reason) from error

    def _check(self) -> None:
        source: Any = self.source
        if issubclass(type(source), np.ndarray):
            if source.dtype != np.uint8 or source.ndim != 3:
                raise InputTypeError(f"Image takes pixels [H, W, C] uint8, not {list(source.shape)} {source.dtype}")
        elif not isinstance(source, str | os.PathLike | bytes | bytearray | memoryview) and not _is_array(source):
            raise InputTypeError(
                "Image takes a path, a URI, bytes, an array or tensor [H, W, C] uint8 or a PIL.Image, "
                f"not {type(source).__name__}"
            )

    def __repr__(self) -> str:
        source = self.source
        if isinstance(source, bytes | bytearray | memoryview):
            return f"Image(<{len(source)} bytes>)"
        if isinstance(source, np.ndarray):
            return f"Image({source.dtype}{list(source.shape)})"
        shown = repr(source)
        return f"Image({shown if len(shown) <= 60 else shown[:60] + '…'})"


def _is_array(source: object) -> bool:
    """Return whether this is an array, a tensor or a PIL image.

    The class is asked before the object, because a PIL image copies all of its pixels to answer for itself.
    """
    names = ("__array_interface__", "__array__")
    return any(hasattr(of, name) for of in (type(source), source) for name in names)


class EncodeResult(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The result of ``encode(..., errors='return')``, and each piece of ``stream(..., errors='return')``.

    Attributes:
        embeddings: ``[N, D]``, float32 or the call's ``dtype``, in input order; NaN for items that failed. If the call
            was stopped, ``[M, D]``: the rows of the M items that were read.
        errors: One error for each item without a row, sorted by index; ``error.index`` and ``error.item`` say which
            item. It is a `NotDoneError` if the call was stopped before the item was done.
        start: Index of the first row's item: 0, except for later pieces of a stream. ``error.index`` also counts from
            the beginning of the whole input.
        stopped: The error that stopped the call early (of the server, the connection or a deadline), or ``None``.
        sent_bytes: Bytes of all requests that were answered. With ``images=`` this includes the test pictures, for the
            call that sent them, and crops that were sent to be measured. Failed attempts do not count. ``None`` if
            requests were shared with other calls (``Client(coalesce=...)``).
        cropped: Number of pictures that were sent as crops, with ``images=``.
        fidelity: With ``images="jpeg95"`` or ``"webp90"``, the smallest cosine between the lossless and the lossy rows
            of the call's first images; for a piece of a stream, what was known when it was answered. ``None`` if all
            images were sent without loss, as in a call of 32 images or fewer.
    """

    embeddings: NDArray[Any]
    errors: tuple[ItemError, ...] = ()
    start: int = 0
    stopped: CasdkError | None = None
    sent_bytes: int | None = None
    cropped: int = 0
    fidelity: float | None = None

    @property
    def ok(self) -> bool:
        """Whether every item has a row: no item failed, and the call was not stopped."""
        return not self.errors and self.stopped is None

    def to_arrow(self) -> ArrowArray:
        """Return the rows as a ``pyarrow.FixedSizeListArray`` on the same memory, null for items that failed.

        Raises:
            ConfigError: pyarrow is not installed.
        """
        from casdk._columns import to_arrow

        array: ArrowArray = to_arrow(self.embeddings, [error.index - self.start for error in self.errors])
        return array

    def __repr__(self) -> str:
        rows = self.embeddings
        stopped = "" if self.stopped is None else f", stopped={self.stopped!r}"
        return f"EncodeResult(embeddings={rows.dtype}{list(rows.shape)}, errors={self.errors!r}{stopped})"


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The request that a response answers.

    Attributes:
        request_id: Id of the request, 32 hex characters.
        exec_endpoint: Endpoint of the executors, such as ``/encode``.
        target_executor: Regular expression that selects executors; empty for all.
    """

    request_id: str
    exec_endpoint: str = ""
    target_executor: str = ""


class Status(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a request, or one executor's part of it, ended.

    Attributes:
        code: 0 for success, 1 for an error.
        description: The server's description of the error.
        name: Class name of the exception on the server.
        args: Arguments of that exception.
        stacks: Lines of the server's traceback.
        executor: The executor that raised it.
    """

    code: int = 0
    description: str = ""
    name: str = ""
    args: tuple[str, ...] = ()
    stacks: tuple[str, ...] = ()
    executor: str = ""

    @property
    def ok(self) -> bool:
        """Whether it succeeded."""
        return self.code == 0


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The gateway or one executor that a request passed on the server.

    Attributes:
        executor: Its name; the first route is the gateway.
        start_ns: When the request arrived there, in nanoseconds since the epoch on the server's clock; 0 if unknown.
        end_ns: When the request left, likewise.
        status: How it ended there.
    """

    executor: str
    start_ns: int = 0
    end_ns: int = 0
    status: Status = Status()

    @property
    def seconds(self) -> float:
        """Time that the request spent there; 0.0 if the server does not report it."""
        return (self.end_ns - self.start_ns) / 1e9 if self.start_ns and self.end_ns else 0.0


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one request went, in seconds; `total` is the sum.

    The server's part comes from its routes, which are durations on the server's clock. `network` is negative if they
    add up to more than the time until the reply came.

    Attributes:
        queued: Waiting after the items were read: for the window, for memory in flight, for attempts that failed.
        packed: Writing the message, including reading and downloading images.
        sent: Waiting for one of ``Limits.requests``, until the message was passed to the connection.
        network: The time that the server does not account for: the network, and connecting if necessary.
        connecting: The part of `network` until a connection was open, if one had to be opened; not added to the sum.
        gateway: The server's time that no executor accounts for.
        executors: Name and time of each executor, in the order of the flow; ``()`` if the server does not report them.
        executing: Time in which at least one executor worked; parallel executors count once.
        scanned: Reading the reply and placing its rows.
    """

    queued: float = 0.0
    packed: float = 0.0
    sent: float = 0.0
    network: float = 0.0
    connecting: float = 0.0
    gateway: float = 0.0
    executors: tuple[tuple[str, float], ...] = ()
    executing: float = 0.0
    scanned: float = 0.0

    @classmethod
    def between(
        cls,
        read_at: float,
        taken_at: float,
        packed_at: float,
        sent_at: float,
        received_at: float,
        placed_at: float,
        routes: tuple[Route, ...],
        *,
        connecting: float = 0.0,
    ) -> Timings:
        """Return the durations between these moments, all in seconds on one clock of the client.

        Args:
            read_at: When the items were read.
            taken_at: When the request was begun.
            packed_at: When the message was written.
            sent_at: When the message was passed to the connection.
            received_at: When the reply was there.
            placed_at: When the rows of the reply were placed.
            routes: The routes of the reply, the gateway's first.
            connecting: Seconds until a connection was open.
        """
        server = routes[0].seconds if routes else 0.0
        executors = tuple([(route.executor, route.seconds) for route in routes[1:]])
        executing = executors[0][1] if len(executors) == 1 else _covered(routes[1:])
        return cls(
            queued=taken_at - read_at,
            packed=packed_at - taken_at,
            sent=sent_at - packed_at,
            network=received_at - sent_at - server,
            connecting=connecting,
            gateway=server - executing,
            executors=executors,
            executing=executing,
            scanned=placed_at - received_at,
        )

    @property
    def server(self) -> float:
        """Time inside the server: gateway and executors."""
        return self.gateway + self.executing

    @property
    def total(self) -> float:
        """Time from reading the items to having their rows."""
        return self.queued + self.packed + self.sent + self.network + self.server + self.scanned


class Data(msgspec.Struct, frozen=True, eq=False):
    """The documents of a response under the name that ``clip_client`` has for them: ``response.data.docs``."""

    docs: DocumentArray


class Response(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The answer to one request, as callbacks get it.

    Attributes:
        header: The request that it answers.
        status: How the request ended.
        routes: The gateway and the executors that the request passed, with times.
        parameters: The request's parameters, as the server sent them back; numbers are floats.
        docs: The documents of the request, as they came back.
        timings: Where the time of the request went.
    """

    header: Header
    status: Status = Status()
    routes: tuple[Route, ...] = ()
    parameters: dict[str, Any] = {}
    docs: DocumentArray = msgspec.field(default_factory=DocumentArray)
    timings: Timings = Timings()

    @property
    def data(self) -> Data:
        """``response.data.docs`` is ``response.docs``."""
        return Data(self.docs)

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status.ok


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time of one request went, in milliseconds.

    It can also be read as from ``clip_client``'s dict: ``p['Roundtrip']``, ``p['Client-server network']``,
    ``p['Server']``, ``p['Gateway-CLIP network']``, ``p['CLIP model']``, and further executors by their names.

    Attributes:
        roundtrip: Time from the call to its result, without opening the connection.
        network: The part outside the server: the network, packing and unpacking.
        server: The part inside the server, including the gateway.
        gateway: The server's time that no executor accounts for, such as the network between gateway and executors.
        executors: Name and time of each executor, in the order of the flow.
    """

    roundtrip: float
    network: float
    server: float
    gateway: float
    executors: tuple[tuple[str, float], ...]

    @classmethod
    def from_response(cls, response: Response) -> Profile:
        """Read the timings of a response.

        Args:
            response: The answer to a request.

        Raises:
            ReplyError: The server reported no times.
        """
        if not response.routes:
            raise ReplyError("the reply has no routes, so the server's times are not known")
        timings = response.timings
        return cls(
            roundtrip=(timings.total - timings.connecting) * 1e3,
            network=(timings.total - timings.connecting - timings.server) * 1e3,
            server=timings.server * 1e3,
            gateway=timings.gateway * 1e3,
            executors=tuple((name, seconds * 1e3) for name, seconds in timings.executors),
        )

    @property
    def _figures(self) -> Mapping[str, float]:
        first, *others = self.executors or (("", 0.0),)
        figures = {
            "Roundtrip": self.roundtrip,
            "Client-server network": self.network,
            "Server": self.server,
            "Gateway-CLIP network": self.gateway,
            "CLIP model": first[1],
        }
        # An executor may be called Server: the figure of that name stays the server's.
        return {**figures, **{name: time for name, time in others if name not in figures}}

    def __getitem__(self, name: str) -> float:
        return self._figures[name]

    def __contains__(self, name: object) -> bool:
        return name in self._figures

    def __iter__(self) -> Iterator[str]:
        return iter(self._figures)

    def __len__(self) -> int:
        return len(self._figures)

    def keys(self) -> KeysView[str]:
        """Return the names of the figures, as ``clip_client`` has them."""
        return self._figures.keys()

    def values(self) -> ValuesView[float]:
        """Return the figures, in milliseconds."""
        return self._figures.values()

    def items(self) -> ItemsView[str, float]:
        """Return names and figures."""
        return self._figures.items()

    def tree(self) -> Tree:
        """Return the figures as a ``rich`` tree, each with its share of the level above."""
        from rich.tree import Tree

        root = Tree(_line("Roundtrip", self.roundtrip, self.roundtrip))
        root.add(_line("Client-server network", self.network, self.roundtrip))
        server = root.add(_line("Server", self.server, self.roundtrip))
        server.add(_line("Gateway-CLIP network", self.gateway, self.server))
        for position, (name, time) in enumerate(self.executors):
            server.add(_line(name if position else "CLIP model", time, self.server))
        return root

    def print(self) -> None:
        """Print the tree."""
        import rich

        rich.print(self.tree())


def _covered(routes: tuple[Route, ...]) -> float:
    """Return the seconds in which at least one executor worked; parallel executors count once."""
    covered = last = 0
    for start, end in sorted((route.start_ns, route.end_ns) for route in routes if route.start_ns and route.end_ns):
        covered += max(0, end - max(start, last))
        last = max(last, end)
    return covered / 1e9


def _line(title: str, time: float, whole: float) -> Any:
    from rich.markup import escape
    from rich.table import Table

    share = time / whole if whole else 0.0
    line = Table(show_header=False, box=None)
    line.add_row(escape(title), f"[b]{_milliseconds(time)}[/b]", f"[dim]{share * 100:.0f}%[/dim]")
    return line


def _milliseconds(time: float) -> str:
    if 0 < time < 0.01:
        return "<0.01ms"
    return f"{time:.2f}ms" if 0 < time < 1 else f"{time:.0f}ms"
