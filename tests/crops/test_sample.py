"""Which images of a call are measured, and that nothing behind them is sent before."""

import random

import pytest
from casdk._calls.batches import Batch, Request
from casdk._calls.decisions import Call, RetryBudget
from casdk._calls.sample import SAMPLE_IMAGES, Sample, Verdict
from casdk._calls.window import Window
from casdk._rust import Kind
from casdk.config import Retry
from casdk.errors import ServerError


def sample_of():
    """A sample of items that are as many images as they say."""
    return Sample(lambda item, kind: item, Verdict(0.9))


def batch_of(start, *images):
    return Batch(range(start, start + len(images)), list(images), bytes([Kind.BLOB]) * len(images))


@pytest.mark.parametrize("size", [1, 5, 32, 33, 100])
def test_it_ends_before_the_next_image_however_they_are_read(size):
    images, sample = [at % 2 for at in range(200)], sample_of()
    for start in range(0, len(images), size):
        sample.read(batch_of(start, *images[start : start + size]))
    assert sample.end == 2 * SAMPLE_IMAGES + 1
    sample.grow()
    assert sample.end == 4 * SAMPLE_IMAGES + 1
    sample.grow()
    assert sample.end is None


def test_an_item_with_many_images_is_not_divided():
    sample = sample_of()
    sample.read(batch_of(0, 0, 40, 0, 40))
    assert sample.end == 3


def test_it_has_begun_with_the_first_image_and_lets_all_go_once_closed():
    verdict = Verdict(0.9)
    sample = Sample(lambda item, kind: item, verdict)
    sample.read(batch_of(0, 0, 0))
    assert not verdict.has_begun
    sample.read(batch_of(2, 1))
    assert verdict.has_begun
    sample.read(batch_of(3, *[1] * 40))
    assert sample.end == SAMPLE_IMAGES + 2
    sample.close()
    sample.read(batch_of(43, 1))
    assert sample.end is None


@pytest.mark.parametrize("seed", range(20))
def test_a_call_sends_the_sample_first_whatever_fails(seed):
    """Requests that fail, or are too large and halved, come again, and all others wait for them."""
    draw = random.Random(seed)
    size = draw.choice([1, 7, 32, 50])
    call = Call(
        window=Window(draw.randint(1, 8)),
        retry=Retry(attempts=100, backoff=0.01),
        budget=RetryBudget(1.0),
        errors="raise",
        resend=True,
        draw=draw.random,
    )
    call.sample = sample_of()
    answered, now, start, grown = [], 0.0, 0, False
    in_flight = []
    while not call.is_finished():
        while start < 300 and call.room() > 0:
            call.add(batch_of(start, *[1] * min(size, 300 - start)))
            start += size
            if start >= 300:
                call.end_input()
        while (batch := call.next_batch(now)) is not None:
            in_flight.append(batch)
        if call.waits_for_sample:
            assert sorted(answered) == list(range(call.sample.end))
            call.sample.close() if grown else call.sample.grow()
            grown = True
            continue
        now += 1.0
        if not in_flight:
            continue
        batch = in_flight.pop(draw.randrange(len(in_flight)))
        if call.sample.end is not None:
            assert max(batch.indices) < call.sample.end
        if draw.random() < 0.3:
            request = Request(batch, "")
            request.batch.sent = True
            error = ServerError("it failed", retryable=True) if draw.random() < 0.7 else ServerError("", too_large=True)
            if not (error.too_large and len(batch) == 1):
                call.fail(batch, error, now)
                continue
        answered += batch.indices
        call.succeed(batch, len(batch))
    assert call.stopped is None
    assert sorted(answered) == list(range(300))
