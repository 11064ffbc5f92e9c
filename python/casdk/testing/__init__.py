"""Servers and proxies that fail on purpose, for casdk's own tests and for tests of programs that use casdk.

It needs ``pip install "casdk[testing]"``. Nothing of casdk imports it.

* `FaultServer`: a CLIP server on six schemes, in this process, with scripted faults (`casdk.testing.faults`).
* `TcpProxy`, `ConnectProxy`, `BlackHole`: proxies between client and server.
* `casdk.testing.certificates`: an authority and every common kind of bad certificate.
* ``pytest_plugins = ["casdk.testing.fixtures"]``: all of it as fixtures.
"""

from casdk._extras import missing_extra

try:
    import cryptography  # noqa: F401
    import google.protobuf  # noqa: F401
    import h2  # noqa: F401
    import h11  # noqa: F401
    import websockets  # noqa: F401
except ImportError as _error:
    raise missing_extra("casdk.testing", "testing", _error) from _error

from casdk.testing import certificates
from casdk.testing.connections import Babble, ConnectionFault, Deaf, EndlessHeaders, Shut, Silent, StallHandshake
from casdk.testing.executor import embed
from casdk.testing.faults import (
    AddDocument,
    Cut,
    DeadExecutor,
    DeepNesting,
    Delay,
    DropDocument,
    Duplicate,
    EntityTooLarge,
    ExecutorError,
    Garbage,
    Hold,
    HugeLength,
    Never,
    NoEmbedding,
    NotFinite,
    Page,
    Refuse,
    Reorder,
    Stale,
    Stall,
    TextReply,
    Trickle,
    Truncate,
    Width,
    WrongId,
)
from casdk.testing.proxy import BlackHole, ConnectProxy, ProxyCounters, TcpProxy
from casdk.testing.scripts import Fault, Gate, Mix, Plan, Request, Rules, planner
from casdk.testing.server import SCHEMES, Counters, FaultServer

__all__ = [
    "SCHEMES",
    "AddDocument",
    "Babble",
    "BlackHole",
    "ConnectProxy",
    "ConnectionFault",
    "Counters",
    "Cut",
    "DeadExecutor",
    "Deaf",
    "DeepNesting",
    "Delay",
    "DropDocument",
    "Duplicate",
    "EndlessHeaders",
    "EntityTooLarge",
    "ExecutorError",
    "Fault",
    "FaultServer",
    "Garbage",
    "Gate",
    "Hold",
    "HugeLength",
    "Mix",
    "Never",
    "NoEmbedding",
    "NotFinite",
    "Page",
    "Plan",
    "ProxyCounters",
    "Refuse",
    "Reorder",
    "Request",
    "Rules",
    "Shut",
    "Silent",
    "Stale",
    "Stall",
    "StallHandshake",
    "TcpProxy",
    "TextReply",
    "Trickle",
    "Truncate",
    "Width",
    "WrongId",
    "certificates",
    "embed",
    "planner",
]
