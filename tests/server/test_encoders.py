"""The encoder that each name stands for."""

import sys

import pytest
from casdk.server.encoders import Features, load


def test_features_need_nothing():
    encoder = load("features")
    assert type(encoder) is Features
    assert encoder.encode_texts(["a", "b"]).shape == (2, encoder.dim)


def test_a_directory_without_a_model(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        load(f"onnx:{tmp_path}")


@pytest.mark.parametrize("name", ["", "onnx", "onnx:", "clip", "Features", "features:x"])
def test_what_is_no_encoder(name):
    with pytest.raises(ValueError, match=f"no encoder '{name}'; there are 'features' and 'onnx:DIRECTORY'"):
        load(name)


def test_without_the_extra_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "casdk.server.encoders.onnx", raising=False)
    with pytest.raises(ImportError, match=r"casdk\[onnx\]"):
        load(f"onnx:{tmp_path}")
