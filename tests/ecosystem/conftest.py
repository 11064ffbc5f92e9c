"""Keeps the suites out of an ordinary pytest run: they need `make ecosystem`'s environments."""

import os

collect_ignore_glob = ["suites/*"] if "CASDK_ECOSYSTEM" in os.environ else ["*.py", "suites/*"]
