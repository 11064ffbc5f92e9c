"""The Rust extension: kinds of inputs, requests into bytes, replies out of bytes.

It opens image files and nothing else. Every function that works on a batch releases the GIL while it does, unless that
is a matter of microseconds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, final

import numpy as np
from numpy.typing import NDArray

__version__: Final[str]
DEBUG: Final[bool]
"""Built without optimisation."""
FIELDS: Final[list[str]]
"""Every field of ``casdk.Document`` that is read and written, plain ones last; ``rust/core`` lists these."""

IMAGE_EXTENSIONS: Final[list[str]]
"""The extensions of image files, with the point, lower case."""

Codec: TypeAlias = Literal["proto", "json"]
Tensor: TypeAlias = tuple[bytes, tuple[int, ...], str]
"""Buffer in C order, shape, NumPy's ``dtype.str``."""
Score: TypeAlias = tuple[float, str, str, str]
"""value, op_name, description, ref_id."""
Status: TypeAlias = tuple[int, str, str, tuple[str, ...], tuple[str, ...], str]
"""code, description, exception name, its args, its stacks, executor."""
Route: TypeAlias = tuple[str, int, int, Status | None]
"""executor, start and end in nanoseconds since the epoch (0 when absent), status."""

FailureKind: TypeAlias = Literal[
    "status",
    "http",
    "foreign",
    "incomplete",
    "surplus",
    "too_large",
    "compressed",
    "reset",
    "refused",
    "lost",
    "protocol",
    "rules",
]
"""A status of gRPC or HTTP other than success; an answer that is not gRPC, not whole, more than one,
too large, or compressed; a stream that was reset, or that the server has not begun with; a connection that ended, that
speaks something else, or breaks the rules of HTTP/2."""

Weight: TypeAlias = tuple[int, int, int]
"""Documents, other values, depth."""

class RawDocument(TypedDict, total=False):
    """A document of a reply: only what the wire had, by the names of ``casdk.Document``."""

    id: str
    text: str
    blob: bytes
    tensor: Tensor
    embedding: Tensor
    uri: str
    mime_type: str
    parent_id: str
    modality: str
    granularity: int
    adjacency: int
    weight: float
    offset: float
    location: list[float]
    tags: dict[str, object]
    scores: dict[str, Score]
    evaluations: dict[str, Score]
    chunks: list["RawDocument"]
    matches: list["RawDocument"]

@final
class Kind:
    """What an item is: the numbers that stand for it where there is one byte for each item of a batch.

    Attributes:
        TEXT: A sentence.
        PATH: The path of an image file.
        DATA_URI: An image inside its ``data:`` URI.
        FILE_URL: The ``file://`` URL of an image.
        WEB_URL: The ``http://`` or ``https://`` URL of an image.
        BLOB: An image's bytes.
        TENSOR: An image's pixels.
        DOCUMENT: A ``casdk.Document``.
        UNCLEAR: What is not known yet, or a string that is neither a sentence nor an image: the name of a
            directory, or a URL with white space in it.
    """

    TEXT: Final[int]
    PATH: Final[int]
    DATA_URI: Final[int]
    FILE_URL: Final[int]
    WEB_URL: Final[int]
    BLOB: Final[int]
    TENSOR: Final[int]
    DOCUMENT: Final[int]
    UNCLEAR: Final[int]

def new_id() -> str:
    """Return a fresh id of 32 hex characters, also in a forked process; only a thread's first is slow."""

def place_of(id: str, request_id: str) -> int | None:
    """Return the position in the message that an id names, if the packer made it up for this request."""

def classify(items: Sequence[object], *, look: bool = True) -> bytes:
    """Return the `Kind` of each item, one byte per item.

    The rule for strings is the table in ``casdk._content.inputs``; ``bytes`` are a blob, and whatever is neither of
    these nor a ``casdk.Document`` is unclear, for Python to look at.
    """

def kind_of_uri(uri: str) -> int:
    """Return the `Kind` of a Document's uri, which leads to an image whatever it looks like.

    Its scheme decides, and without one it is a path. A URL with white space in it is unclear.
    """

def read_uri(uri: str, max_bytes: int) -> bytes:
    """Return what a path, a ``file://`` URL or a data URI leads to, read as `Packer` reads it, an image or not.

    Nothing but a regular file is opened, so that this never waits for another program. The GIL is released.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: It is no regular file, or may not be read, or there are more bytes than allowed.
        ValueError: The data URI is broken, or it is a URL with white space in it, or one to be fetched.
    """

def decode_data_uri(uri: str) -> tuple[str, bytes]:
    """Return media type and payload of an RFC 2397 URI.

    Raises:
        ValueError: The URI is broken; the message names the offset.
    """

@final
class Packer:
    """How the requests of one call are written; made once per call.

    Args:
        codec: The wire's form.
        endpoint: Executor endpoint, e.g. ``/encode``.
        parameters: Request parameters; NumPy scalars are taken as numbers.
        check_images: Refuse what is not an image by its magic bytes.
        max_item_bytes: Largest item.
        max_message_bytes: Where to cut a batch.
        whole: Send everything a Document carries (matches, chunks, embedding, scores), as docarray would, and an
            image's ``uri`` beside the bytes read from it.
        candidates: Name of the attribute whose Documents are sent as matches, their ids replaced by their
            positions (``"0"``, ``"1"``, ...), their content read like the root's; ``None`` sends none.
        allow_empty: Send Documents without content instead of reporting them as failures.
        local_files: Open files; paths are failures (``not_allowed``) otherwise.
        fetch_urls: Whether http(s) URLs are ever fetched; failures of the same kind otherwise.

    Raises:
        TypeError: A parameter cannot go on the wire; the message names its key.
    """

    def __new__(
        cls,
        codec: Codec,
        endpoint: str,
        parameters: Mapping[str, object],
        *,
        check_images: bool = True,
        max_item_bytes: int = ...,
        max_message_bytes: int = ...,
        whole: bool = False,
        candidates: str | None = None,
        allow_empty: bool = False,
        local_files: bool = True,
        fetch_urls: bool = True,
    ) -> Packer: ...
    def pack(
        self,
        request_id: str,
        items: Sequence[object],
        kinds: bytes,
        fetched: Mapping[str, bytes] | None = None,
    ) -> Packed:
        """Write one request.

        Items that are no Documents get an id that is made of the request's and names their position in the message, see
        `place_of`. Documents keep theirs. A Document's text wins over blob, tensor and uri, in that order; a uri is
        read like a string item's, without looking at its extension (it is an image), and an http(s) URL is
        looked up in ``fetched``.

        Args:
            request_id: 32 hex characters.
            items: One batch.
            kinds: The `Kind` of each item, one byte per item: those of `classify`, and ``TENSOR`` for a C-contiguous
                ``ndarray``. What is unclear cannot be packed.
            fetched: Bytes of the http(s) URLs among the items.

        A Document may be of the caller's own class, or hold values of the caller's own types: then their code is run.
        """
    def pack_sentences(self, request_id: str, items: Sequence[object], kinds: bytes) -> Packed | None:
        """Write one request of nothing but text, in Documents too: that takes less than handing it to a thread.

        It runs no code of the caller's.

        Returns:
            ``None`` where something else is among the items: Documents with matches or chunks, of another class than
            `casdk.Document` itself, or with values of other types than builtin ones.
        """

@final
class Packed:
    """One request, written."""

    @property
    def message(self) -> bytes | memoryview:
        """Its bytes; a large one of `json` is a view, since a copy would take as much memory again."""
    @property
    def rows(self) -> int:
        """Documents in the message."""
    @property
    def taken(self) -> int:
        """Items looked at, from the first; fewer than there are where ``max_message_bytes`` cut the batch."""
    @property
    def failures(self) -> list[tuple[int, str, str]]:
        """Position, kind and reason of each item that is not in the message.

        Kinds: ``missing`` ``unreadable`` ``not_image`` ``data_uri`` ``too_large`` ``empty`` ``type``
        ``not_fetched``. For a candidate the reason names its position.
        """
    @property
    def causes(self) -> dict[int, BaseException]:
        """The exception of each item that could not be read, by its position: the caller's own, most of the time."""

@final
class Reply:
    """A scanned reply: offsets into the bytes of the message, which it keeps alive.

    Raises:
        casdk.errors.ReplyError: The bytes are no reply; the message names the offset.
    """

    @property
    def request_id(self) -> str: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def target_executor(self) -> str: ...
    @property
    def status(self) -> Status | None: ...
    @property
    def failed(self) -> bool:
        """Whether the status is there and its code is not 0."""
    @property
    def routes(self) -> list[Route]: ...
    @property
    def parameters(self) -> dict[str, object]: ...
    @property
    def rows(self) -> int:
        """Documents in the reply."""
    @property
    def width(self) -> int:
        """Numbers in the first embedding; 0 when no document has one."""
    def place(
        self,
        out: NDArray[np.float32] | NDArray[np.float16],
        start: int,
        sent: int,
        request_id: str,
        rows: Sequence[int] | None = None,
    ) -> list[int]:
        """Write the embeddings into rows of ``out`` ``[R, D]``; the numbers of JSON are read here, and not by `scan`.

        A document goes to the position that its id names, see `place_of`, and where it names none to its position in
        the reply.

        Args:
            out: C-contiguous matrix; other dtypes on the wire are converted.
            start: Row of position 0.
            sent: Documents that were in the request.
            request_id: Of the request.
            rows: Row of each position, instead of ``start`` + position.

        Returns:
            Positions that got no row: documents dropped by the server or left without an embedding.

        Raises:
            casdk.errors.ReplyError: A row of another width than ``D`` (both are named), a row that does not fit
                ``out``, more documents than were sent, or fewer where ids do not show which are missing, or
                something in an embedding of JSON that is no number.
        """
    def documents(self) -> list[RawDocument]:
        """Return the documents, nested ones included."""

@final
class Head:
    """The head of a gRPC call over HTTP/2: made once, and sent with many.

    Args:
        tls: Whether the connection is a secure one.
        authority: The server, ``host:port``.
        path: The method.
        timeout: The deadline in seconds.
        headers: Names in lower case, and values.

    Raises:
        ValueError: A header, or the server's name, cannot be sent; it is not named, since it may be a secret.
    """

    def __new__(
        cls, tls: bool, authority: str, path: str, timeout: float, headers: Sequence[tuple[str, str]]
    ) -> Head: ...
    def with_headers(self, headers: Sequence[tuple[str, str]]) -> Head:
        """Return it with headers that belong to one request alone.

        Raises:
            ValueError: As for the others.
        """

@final
class Message:
    """A message as it was received, in memory that Rust owns."""

    def __len__(self) -> int: ...
    def __bytes__(self) -> bytes: ...

@final
class Failure:
    """Why a call, or a connection, has ended."""

    @property
    def kind(self) -> FailureKind: ...
    @property
    def code(self) -> int:
        """GRPC's (``status``), HTTP's (``http``), or HTTP/2's (``reset``, ``refused``, ``rules``); else 0."""
    @property
    def words(self) -> str:
        """The server's words, or a description of what it did wrong."""
    @property
    def asked(self) -> str | None:
        """The wait that the server asks for, as it was sent."""
    @property
    def sent(self) -> bool:
        """Whether the server may have begun with the request."""

Stepped: TypeAlias = tuple[list[tuple[int, Message | Failure]], bytes | memoryview | None, bool, bool]
"""Calls that have ended, by their streams; bytes to be sent; whether there are more, once these are sent; whether some
of what was received waits to be read until then."""

@final
class Http2:
    """A client's connection of HTTP/2 with gRPC's calls on it: no socket, no clock.

    Args:
        largest: Bytes of the largest reply.
    """

    def __new__(cls, largest: int) -> Http2: ...
    def request(self, head: Head, message: bytes | memoryview, timeout: float | None = None) -> int:
        """Begin a call with one message; return its stream. It is sent with the next step.

        Args:
            head: Its head.
            message: Its message.
            timeout: Its deadline in seconds, if it is another than the head's.

        Raises:
            ConnectionError: The connection takes no more; nothing was sent.
        """
    def cancel(self, stream: int) -> None:
        """Cancel a call: the next step resets its stream, and the call has no outcome."""
    def ping(self) -> None:
        """Send a ping with the next step, unless one is unanswered."""
    def step(self, data: bytes | None, now: float, room: bool) -> Stepped:
        """Read received bytes, if there are any, and return bytes to be sent.

        Args:
            data: What was received.
            now: The time in seconds, by any clock that does not go back.
            room: Whether more can be sent. If not, it is kept here, up to a limit at which nothing more is read.
        """
    def end_of_input(self) -> Stepped:
        """Note that nothing more will be received: the server has closed the connection, or it broke."""
    @property
    def state(self) -> Literal["opening", "open", "leaving", "closed"]:
        """Whether it waits for the server's first frame, takes requests, only finishes those in flight, or is over."""
    @property
    def ended(self) -> Failure | None:
        """Why it has ended, if it has."""
    @property
    def go_away(self) -> tuple[int, str] | None:
        """Code and words of the server's GOAWAY, if it sent one."""

def are_consecutive(rows: list[Any]) -> bool:
    """Return whether these are arrays of one shape that lie in memory one right after the other.

    ``False`` for what is no array, and for a dtype that embeddings and pixels do not come in: single, half and double,
    int8, uint8, int32 and int64 are known. Two matrices may lie one right after the other, too.
    """

def copy_rows(
    rows: NDArray[np.float32] | NDArray[np.float16], start: int, stop: int
) -> NDArray[np.float32] | NDArray[np.float16]:
    """Return rows of a matrix as one of its own, without releasing the GIL, which NumPy does for 500 numbers.

    Raises:
        IndexError: There are fewer rows.
    """

def to_half(rows: NDArray[np.float32]) -> NDArray[np.float16]:
    """Return rows ``[N, D]`` in half precision, C-contiguous and rounded as NumPy rounds, but faster.

    The GIL is not released.

    Args:
        rows: ``[N, D]``, with any strides.
    """

def are_strings(items: list[Any]) -> bool:
    """Return whether all items are ``str``, no subclass of it, and have no lone surrogates."""

def pack_strings(items: list[str]) -> tuple[bytes, tuple[bytes, bytes] | None]:
    """Return strings in Parquet's plain encoding, and the smallest and the largest of them, if there are any, in UTF-8.

    In plain encoding a string is its length in four bytes, little-endian, and then its UTF-8.

    Raises:
        OverflowError: A string has 4 GiB or more.
        UnicodeEncodeError: A string has a lone surrogate.
    """

def sum_words(data: NDArray[np.uint8], before: int) -> int:
    """Return the sum of the 64-bit little-endian words of bytes, modulo 2 to the 64th; zeros fill up the last word.

    Args:
        data: ``[N]``, the bytes.
        before: How many come before these in a longer sequence, whose sum is that of its parts.
    """

def copy_and_sum(out: NDArray[np.uint8], start: int, data: NDArray[np.uint8], before: int) -> int:
    """Copy bytes into a place, and return the sum that `sum_words` returns for them.

    Up to a megabyte is copied without releasing the GIL.

    Args:
        out: ``[M]``, where they are copied to.
        start: The place of the first byte.
        data: ``[N]``, the bytes.
        before: As for `sum_words`.

    Raises:
        IndexError: There is no room for them.
    """

EndKind: TypeAlias = Literal["foreign", "refused", "closed", "lost", "too_large", "rules"]
"""The server does not speak websocket; it answered the handshake with another status; it has closed the websocket; the
connection ended; a message is too large; the server breaks the rules, or sends too many frames without content."""

@final
class End:
    """Why a websocket has ended."""

    @property
    def kind(self) -> EndKind: ...
    @property
    def code(self) -> int:
        """HTTP's (``refused``), or that of the server's close frame (``closed``; 1005 if it had none); else 0."""
    @property
    def words(self) -> str:
        """The server's words, or a description of what it did wrong."""
    @property
    def asked(self) -> str | None:
        """The wait that the server asks for, as it was sent."""

@final
class Websocket:
    """A client's websocket, all of whose messages are binary: no socket, no clock.

    Args:
        host: What the handshake names as the host.
        path: What it asks for.
        subprotocol: What it asks for, too; the server need not say so.
        headers: More of its fields.
        largest: Bytes of the largest message that may come.

    Raises:
        ValueError: A header cannot be sent; the message does not show its value.
    """

    def __new__(
        cls, host: str, path: str, subprotocol: str, headers: Sequence[tuple[str, str]], largest: int
    ) -> Websocket: ...
    def send(self, message: bytes | memoryview) -> int:
        """Send a message after those that wait, and return its number.

        Raises:
            ConnectionError: The websocket is not open.
        """
    def cancel(self, number: int) -> None:
        """Drop a message of which nothing was sent."""
    def ping(self) -> None:
        """Send a ping."""
    def close(self) -> None:
        """Send a close frame, after the messages that wait."""
    def receive(self, data: bytes | None, now: float) -> tuple[list[Message], bool, bool]:
        """Read what was received, if anything, and what waits from before.

        Args:
            data: What was received.
            now: The time in seconds, by any clock that does not go back.

        Returns:
            The messages; whether some of what was received waits for another turn, as what comes behind the answer to
            the handshake does; whether the state has changed, or there is something to be sent.
        """
    def end_of_input(self) -> None:
        """Note that nothing more will be received: the server has closed the connection, or it broke."""
    def output(self) -> bytes | memoryview | None:
        """Return what is to be sent next, if there is anything: not all of it at once, if it is large.

        Raises:
            OSError: The system has no randomness to give.
        """
    @property
    def has_output(self) -> bool:
        """Whether there is anything to be sent."""
    @property
    def state(self) -> Literal["opening", "open", "closing", "closed"]:
        """Whether the handshake is unanswered, messages can be sent, this side has closed it, or it has ended."""
    @property
    def ended(self) -> End | None:
        """Why it has ended, if it has."""

def request_id_of(message: bytes | Message) -> str:
    """Return the request id of a `proto` reply without scanning it; what pairs replies on a websocket.

    Raises:
        casdk.errors.ReplyError: The message has no readable header.
    """

def first_id_of(message: bytes | memoryview | Message) -> str | None:
    """Return the id of the first document of a `json` request or reply; what pairs replies on http.

    ``None`` where there is no document, an empty string where it has no id. No more is read than that takes.

    Args:
        message: Of views, only one that `Packed` or `Http2` has lent can be read.

    Raises:
        casdk.errors.ReplyError: The text breaks before.
    """

def weigh_request(message: bytes) -> Weight:
    """Count the objects that parsing a `proto` request would make, without parsing it.

    Raises:
        ValueError: The bytes are no message, or are nested more than 100 deep.
    """

def weigh_json(text: bytes) -> Weight:
    """Count what parsing a JSON text would make; every object counts as a document. The text may be malformed."""

def http1_head(method: str, target: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """Return the head of a request of HTTP/1.1, but for the empty line at its end.

    Raises:
        ValueError: A name or a value cannot be sent, e.g. for a line break in it; it is not shown.
    """

@final
class Http1Replies:
    """Reads the replies on a connection of HTTP/1.1, one after the other; `ask` announces each."""

    def __new__(cls) -> Http1Replies: ...
    def ask(self, most: int) -> None:
        """Await the reply to a request, whose body may have so many bytes."""

    def receive(self, data: bytes) -> Message | None:
        """Read received bytes; return the body once the reply is whole.

        Raises:
            ProtocolMismatchError: It is no beginning of a reply of HTTP/1.1.
            ReplyError: It breaks the rules, is in a coding that was not asked for, or larger than allowed.
        """

    def end(self) -> Message:
        """Take the end of the connection; return the body of a reply that ends with it.

        Raises:
            TransportError: The reply was not whole.
        """

    @property
    def begun(self) -> bool:
        """Whether a byte has come of a reply that is not whole yet."""
    @property
    def status(self) -> int:
        """The status code of the last reply; 0 as long as its head has not come."""
    @property
    def keep_alive(self) -> bool:
        """Whether another request may follow it."""
    @property
    def coded(self) -> bool:
        """Whether its body is in a coding, which only an error's may be."""
    @property
    def retry_after(self) -> str | None:
        """Its header of that name."""

def scan(codec: Codec, message: bytes | Message) -> Reply:
    """Scan one reply. A `Message` is not copied."""

def scan_status(codec: Codec, message: bytes) -> Status | None:
    """Scan a status that travels by itself, as the answer to a dry run does; JSON's ``null`` is none.

    Raises:
        casdk.errors.ReplyError: The bytes break.
    """
