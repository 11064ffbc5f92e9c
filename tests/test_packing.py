"""A batch becomes one message: items without room wait, and unfit items are refused by their index."""

from types import SimpleNamespace

import pytest
from casdk import FileMissingError, Limits
from casdk._calls.batches import Batch
from casdk._calls.options import Options
from casdk._calls.packing import Packing, leave_out
from casdk._calls.verbs import ENCODE, INDEX
from casdk._content.inputs import Sources
from casdk._rust import Kind


class Decisions:
    def __init__(self):
        self.rest, self.refused = [], []

    def cut(self, batch):
        self.rest.append(list(batch.indices))

    def refuse(self, error):
        self.refused.append(error)


def packed(taken, failures=(), causes=None):
    return SimpleNamespace(taken=taken, failures=list(failures), causes=causes or {})


def batch_of(*items):
    return Batch(range(10, 10 + len(items)), list(items), bytes([Kind.PATH]) * len(items))


def test_items_without_room_in_a_message_are_sent_next():
    batch, call = batch_of("a", "b", "c"), Decisions()
    leave_out(batch, packed(2), call)
    assert (list(batch.indices), batch.items, batch.kinds) == ([10, 11], ["a", "b"], bytes([Kind.PATH]) * 2)
    assert call.rest == [[12]]
    assert call.refused == []


def test_an_unfit_item_is_refused_by_its_index():
    batch, call, cause = batch_of("a.png", "b.png", "c.png"), Decisions(), OSError("gone")
    leave_out(batch, packed(3, [(1, "missing", "there is no such file")], {1: cause}), call)
    assert (list(batch.indices), batch.items) == ([10, 12], ["a.png", "c.png"])
    [error] = call.refused
    assert type(error) is FileMissingError
    assert (error.index, error.item, error.cause) == (11, "b.png", cause)


def test_a_url_that_could_not_be_fetched_says_why():
    batch, call = batch_of("http://host/a.png"), Decisions()
    lost = ConnectionError("refused")
    batch.errors = {"http://host/a.png": lost}
    leave_out(batch, packed(1, [(0, "not_fetched", "it could not be fetched")]), call)
    assert call.refused[0].cause is lost
    assert call.refused[0].reason == "it could not be fetched: refused"
    assert batch.items == []


def session():
    return SimpleNamespace(limits=Limits(), sources=Sources(), writings={})


def packer(of, verb=ENCODE, **options):
    return Packing(of, ("proto",), verb, Options(**options), None).packers["proto"]


@pytest.mark.parametrize(
    ("verb", "options"),
    [(ENCODE, {"check_images": False}), (ENCODE, {"parameters": {}}), (INDEX, {})],
    ids=["option", "parameters", "verb"],
)
def test_calls_of_a_client_that_ask_for_the_same_share_what_writes_their_requests(verb, options):
    one, other = session(), session()
    shared = packer(one)
    assert packer(one, batch_size=3) is shared
    assert packer(one, verb, **options) is not shared
    assert packer(other) is not shared
