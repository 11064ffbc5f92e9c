"""Keeps the suites of real servers out of an ordinary pytest run: they need `make interop`'s environments."""

import os

if "CASDK_INTEROP" in os.environ:
    from fixtures import clip_reference, deterministic_server, encoder_server, reference, running, server  # noqa: F401
else:
    collect_ignore_glob = ["test_*.py"]
