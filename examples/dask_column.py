"""A column of embeddings for a dask DataFrame, encoded in two worker processes.

python examples/dask_column.py [grpc://host:port]      needs pip install casdk 'dask[dataframe]'
"""

import os
import sys

import dask.dataframe as dd
import numpy as np
import pandas as pd
from casdk import Client
from casdk.interop import dask as casdk_dask


def main(address: str) -> None:
    """Encode 400 sentences in four partitions."""
    sentences = pd.DataFrame({"text": [f"a photo of {number} apples" for number in range(400)]})
    with Client(address) as client:
        frame = dd.from_pandas(sentences, npartitions=4)
        embedded = casdk_dask.encode(frame, client, "text").compute(scheduler="processes", num_workers=2)
        assert np.array_equal(np.stack(embedded["embedding"]), client.encode(sentences["text"]))
    print(f"process {os.getpid()} has encoded nothing but the check; its workers made {len(embedded)} rows:")
    print(embedded.head())


if __name__ == "__main__":  # the workers import this file
    main(sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:51000")
