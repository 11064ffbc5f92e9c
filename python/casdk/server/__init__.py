"""The embedded server: `serve` runs it for tests and demos, ``python -m casdk.server`` runs it in the foreground.

It speaks the protocols of a jina gateway on six schemes at once. It needs the extra ``casdk[server]``.
"""

from casdk.server.serving import Served, ServerDiedError, serve

__all__ = ["Served", "ServerDiedError", "serve"]
