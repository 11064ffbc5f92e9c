"""Keeps the suites of real servers out of an ordinary pytest run: they need `make interop`'s environments.

The suites of ``documents`` run in environments of their own, started by its ``run.py``.
"""

import os

if "CASDK_INTEROP" in os.environ:
    from fixtures import clip_reference, deterministic_server, encoder_server, reference, running, server  # noqa: F401

    collect_ignore_glob = ["documents"]
else:
    collect_ignore_glob = ["test_*.py", "documents"]
