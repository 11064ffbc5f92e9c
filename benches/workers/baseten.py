"""baseten's client, whose HTTP and JSON are Rust's, speaking OpenAI's dialect: ``python baseten.py ADDRESS CA``."""

import sys

from baseten_performance_client import PerformanceClient, RequestProcessingPreference
from content import texts
from loop import Call, Case, serve

ADDRESS, _ = sys.argv[1:]
IN_FLIGHT = 32
"""As many requests at a time as casdk has at most."""


def prepare(case: Case) -> Call:
    client = PerformanceClient(base_url=ADDRESS, api_key="none")
    sent = texts(case["n"])
    preference = RequestProcessingPreference(batch_size=case["batch"], max_concurrent_requests=IN_FLIGHT)
    return lambda: client.embed(input=sent, model="m", preference=preference).numpy()


if __name__ == "__main__":
    serve(prepare)
