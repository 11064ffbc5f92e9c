"""The embedded server: `serve` for tests and demos, ``python -m casdk.server`` in the foreground.

It speaks the wire of a jina gateway on six schemes at once. Needs the extra ``casdk[server]``.
"""

from casdk.server.serving import Served, ServerDiedError, serve

__all__ = ["Served", "ServerDiedError", "serve"]
