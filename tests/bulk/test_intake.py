"""What of an input goes into a shard: lists of texts at once, all else as it is asked for."""

import pytest
from casdk.bulk.intake import Intake
from casdk.bulk.sources import open_source
from casdk.bulk.work import Work

TEXTS = [f"sentence {number}" for number in range(10)]


def intake_of(content, work, shard_rows=6):
    return Intake(open_source(content), work, 2, shard_rows)


def test_a_list_of_texts_is_there_at_once():
    source, works = open_source(TEXTS), [Work(0), Work(1)]
    found = [Intake(source, work, 2, 6).items(0) for work in works]
    assert found == [TEXTS[:6], TEXTS[6:]]
    assert all(type(items) is list for items in found)
    assert [work.read for work in works] == [6, 4]
    assert works[1].names(4) == TEXTS[6:]


@pytest.mark.parametrize(
    ("content", "fewest"),
    [(tuple(TEXTS), 0), ([*TEXTS[:5], b"bytes"], 0), ([*TEXTS[:5], "\ud800"], 0), (TEXTS, 7), ([*TEXTS[:5], "a"], 7)],
)
def test_all_else_is_read_as_it_is_asked_for(content, fewest):
    work = Work(0)
    items = intake_of(content, work).items(fewest)
    assert next(items) == TEXTS[0]
    assert work.read == 2
    assert len(list(items)) == 5
    assert work.read == 6


@pytest.mark.parametrize("content", [TEXTS, tuple(TEXTS)])
def test_an_end_leaves_what_was_not_read(content):
    work = Work(0)
    intake = intake_of(content, work)
    items = intake.items(0)
    intake.end()
    assert list(items) == []
    assert list(intake.items(0)) == []


async def test_an_async_input():
    async def items():
        for text in TEXTS:
            yield text

    work = Work(0)
    assert [item async for item in intake_of(items(), work).items(0)] == TEXTS[:6]
    assert work.read == 6
