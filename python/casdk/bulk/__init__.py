"""The public part of bulk runs: sources of named items for `Client.encode_to`, `merge`, and `BulkResult`.

A bulk run may be killed at any moment; the same call continues it.
"""

from casdk.bulk.archives import tars
from casdk.bulk.merging import merge
from casdk.bulk.result import BulkResult
from casdk.bulk.sources import Named, files, lines
from casdk.bulk.tables import parquet

__all__ = ["BulkResult", "Named", "files", "lines", "merge", "parquet", "tars"]
