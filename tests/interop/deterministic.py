"""Rows that anyone can recompute: what the reference flow's executor answers, and what the tests expect.

Runs under every numpy and every Python of the environments, so that both sides import this one file.
"""

import hashlib

import numpy as np

WIDTH = 512
RAISES, SLEEPS, WITHOUT_ROW, DROPPED = "!!raise", "!!sleep:", "!!without-row", "!!drop"
"""How texts begin that make the executor misbehave: fail, take the seconds that follow, answer without an
embedding, lose the document."""
TEMPERATURE = np.exp(4.60517)
"""CLIP's, as clip_server scales the cosines of a ranking."""


def rows(contents):
    """Return the embeddings ``[N, WIDTH]`` float32 in ``[-1, 1)`` of these byte strings."""
    seeds = (hashlib.blake2b(content, digest_size=32).digest() for content in contents)
    words = np.frombuffer(b"".join(hashlib.shake_128(seed).digest(4 * WIDTH) for seed in seeds), "<u4")
    return (words.astype(np.float64) / 2**31 - 1.0).astype(np.float32).reshape(-1, WIDTH)


def cosines(queries, candidates):
    """Return the cosine similarities ``[Q, C]`` of rows, in double: `softmax` makes a last bit 100 times larger.

    The two sides have libraries, and so roundings, of their own.
    """
    return _unit(queries) @ _unit(candidates).T


def softmax(cosine):
    """Return CLIP's probabilities of one query's cosines ``[C]``."""
    exponent = TEMPERATURE * cosine
    weights = np.exp(exponent - exponent.max())
    return weights / weights.sum()


def ranking(matrix):
    """Return order, probabilities and cosines of the candidates ``[1:]`` of a query ``[0]``, best first."""
    cosine = cosines(matrix[:1], matrix[1:])[0]
    order = np.argsort(-cosine, kind="stable")
    return order.tolist(), softmax(cosine)[order], cosine[order]


def _unit(matrix):
    matrix = np.asarray(matrix, np.float64)
    return matrix / np.maximum(np.linalg.norm(matrix, axis=-1, keepdims=True), 1e-12)
