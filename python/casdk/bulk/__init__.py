"""Bulk runs: sources of named items for `Client.encode_to`, which may be killed at any moment and goes on."""

from casdk.bulk.archives import tars
from casdk.bulk.merging import merge
from casdk.bulk.result import BulkResult
from casdk.bulk.sources import Named, files, lines
from casdk.bulk.tables import parquet

__all__ = ["BulkResult", "Named", "files", "lines", "merge", "parquet", "tars"]
