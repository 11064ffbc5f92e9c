"""openai's client at a server of its dialect, rows as JSON numbers: ``python openai_python.py ADDRESS CA``."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from content import texts
from loop import Call, Case, serve
from openai import OpenAI

ADDRESS, _ = sys.argv[1:]
THREADS = 8


def prepare(case: Case) -> Call:
    client = OpenAI(base_url=f"{ADDRESS}/v1", api_key="none")
    sent, size = texts(case["n"]), case["batch"]
    batches = [sent[start : start + size] for start in range(0, len(sent), size)]
    pool = ThreadPoolExecutor(THREADS)

    def rows_of(batch: list[str]) -> np.ndarray:
        reply = client.embeddings.create(input=batch, model="m", encoding_format="float")
        return np.array([item.embedding for item in reply.data], np.float32)

    if len(batches) == 1:
        return lambda: rows_of(batches[0])
    return lambda: np.concatenate(list(pool.map(rows_of, batches)))


if __name__ == "__main__":
    serve(prepare)
