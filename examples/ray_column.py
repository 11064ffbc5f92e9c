"""A column of embeddings for a Ray Dataset, encoded by Ray's workers.

python examples/ray_column.py [grpc://host:port]      needs pip install 'casdk[arrow]' 'ray[data]'
"""

import sys

import numpy as np
import ray
from casdk import Client
from casdk.interop import ray as casdk_ray


def main(address: str) -> None:
    """Encode 400 sentences and look for the one nearest to a query."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    sentences = [f"a photo of {number} apples" for number in range(400)]
    dataset = ray.data.from_items([{"text": text} for text in sentences])
    with Client(address) as client:
        rows = casdk_ray.encode(dataset, client, "text", batch_size=100).take_all()
        [query] = client.encode(["a photo of 7 apples"])
    nearest = max(rows, key=lambda row: float(np.dot(row["embedding"], query)))
    assert len(rows) == len(sentences)
    assert nearest["text"] == "a photo of 7 apples"
    print(f"{len(rows)} rows; nearest to the query: {nearest['text']!r}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "grpc://127.0.0.1:51000")
