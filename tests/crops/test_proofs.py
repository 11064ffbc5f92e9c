"""Crops to several servers: all have to show that they prepare images alike, or originals are sent."""

import logging

import numpy as np
import pytest
from casdk import Client, ModelMismatchError, Pool
from casdk._calls.proofs import _common, _difference
from casdk._content.canary import Proof
from casdk._content.crops import Form
from casdk._engine.logging import flush
from casdk.server import serve
from casdk.testing import TcpProxy
from clip_models import jpegs, write_models

JPEG, PNG = Form("JPEG", "RGB"), Form("PNG", "RGB")


def test_servers_that_show_the_same_get_crops(clip, client, caplog):
    photos = list(jpegs())
    with (
        caplog.at_level(logging.INFO, "casdk.calls"),
        Client([clip.address("grpc"), clip.address("http")]) as pooled,
    ):
        results = [pooled.encode(photos, images="exact", batch_size=1, errors="return") for _ in range(2)]
        shares = [server.share for server in pooled.servers]
    for result in results:
        np.testing.assert_array_equal(result.embeddings, client.encode(photos))
        assert result.cropped == len(photos)
    assert min(shares) > 0
    assert flush(20)
    shown = [record.message for record in caplog.records if "give the rows of originals" in record.message]
    assert sorted(line.partition(": ")[0] for line in shown) == sorted([clip.address("grpc"), clip.address("http")])


def test_models_of_other_sizes_get_originals(clip, jpeg, tmp_path, caplog):
    with serve(encoder=f"onnx:{write_models(tmp_path, 336)}", schemes=["grpc"]) as larger:
        both = [clip.address("grpc"), larger.address("grpc")]
        with Client(both, pool=Pool(check_space=False)) as pooled:
            for _ in range(2):
                assert pooled.encode([jpeg], images="exact", errors="return").cropped == 0
        assert flush(20)
        assert [record.message for record in caplog.records] == [
            "all images are sent as they are: the models of the servers look at squares of other sizes: "
            f"{both[0]} at 224 x 224 pixels, {both[1]} at 336 x 336 pixels"
        ]
        with Client(both) as pooled, pytest.raises(ModelMismatchError):
            pooled.encode([jpeg], images="exact")


def test_a_server_that_prepares_images_in_its_own_way_is_named(clip, server, jpeg, caplog):
    both = [clip.address("grpc"), server.address("grpc")]
    with Client(both, pool=Pool(check_space=False)) as pooled:
        assert pooled.encode([jpeg], images="exact", errors="return").cropped == 0
    assert flush(20)
    [record] = caplog.records
    assert f"as they are: {both[1]} gives other rows for crops of any size" in record.message


def test_a_server_that_is_away_has_shown_nothing_and_is_asked_by_the_next_call(clip, jpeg, caplog):
    with (
        TcpProxy(int(clip.address("grpc").rpartition(":")[2])) as proxy,
        Client([clip.address("http"), proxy.address("grpc")]) as pooled,
    ):
        proxy.refuse()
        assert pooled.encode([jpeg], images="exact", errors="return").cropped == 0
        assert flush(20)
        assert f"as they are: {proxy.address('grpc')} could not be asked" in caplog.text
        proxy.refuse(False)
        cropped = 0
        while not cropped:  # the server is left out for a while
            cropped = pooled.encode([jpeg], images="exact", errors="return").cropped


def test_servers_that_may_change_get_originals(clip, jpeg, caplog):
    with Client(clip.address("grpc"), pool=Pool(resolve=True)) as pooled:
        for _ in range(2):
            assert pooled.encode([jpeg], images="exact", errors="return").cropped == 0
    assert flush(20)
    [record] = caplog.records
    assert "a pool with resolve=True may change" in record.message


def test_loss_is_measured_by_a_pool_too(clip):
    photos = [jpegs()[at % 8] for at in range(40)]
    with Client([clip.address("grpc"), clip.address("http")]) as pooled:
        result = pooled.encode(photos, images="jpeg95", min_fidelity=0.99, errors="return")
    assert result.cropped == len(photos)
    assert 0.99 < result.fidelity < 1


def test_what_servers_have_in_common():
    first, second = Proof(224, frozenset({JPEG, PNG})), Proof(224, frozenset({JPEG}))
    assert _common({"a": first, "b": second}) == second
    assert _common({"a": first, "b": None}) is None
    assert _common({"a": first, "b": Proof(336, frozenset({JPEG}))}) is None
    assert _difference({"a": first, "b": None}) == ""
