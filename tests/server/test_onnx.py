"""The ONNX encoder runs CLIP's models on the right tokens and pixels, and names what is missing."""

import base64
import gzip
import io

import httpx
import numpy as np
import onnx
import pytest
from casdk.server import serve
from casdk.server.encoders import load
from casdk.server.encoders.onnx import DEVIATION, MEAN, Onnx
from casdk.server.encoders.tokens import VOCABULARY, ClipTokens
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

DIM = 16
SIDE = 32
RNG = np.random.default_rng(7)
TEXT_WEIGHTS = RNG.standard_normal((77, DIM)).astype(np.float32)
IMAGE_WEIGHTS = RNG.standard_normal((3 * 4, DIM)).astype(np.float32)


def _save(path, nodes, inputs, weights, width=DIM, **constants):
    floats = TensorProto.FLOAT
    output = helper.make_tensor_value_info("y", floats, ["N", width])
    arrays = [numpy_helper.from_array(array, name) for name, array in {"W": weights, **constants}.items()]
    graph = helper.make_graph(nodes, path.stem, inputs, [output], arrays)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def _textual(path, kind=TensorProto.INT32, masked=True, weights=TEXT_WEIGHTS):
    """(input_ids * attention_mask) / 49408 @ W, or without the mask."""
    ids = helper.make_tensor_value_info("input_ids", kind, ["N", 77])
    mask = helper.make_tensor_value_info("attention_mask", kind, ["N", 77])
    nodes = [helper.make_node("Mul", ["input_ids", "attention_mask" if masked else "one"], ["m"])]
    nodes += [
        helper.make_node("Cast", ["m"], ["c"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["c", "S"], ["d"]),
        helper.make_node("MatMul", ["d", "W"], ["y"]),
    ]
    one = np.array(1, {TensorProto.INT32: np.int32, TensorProto.INT64: np.int64}[kind])
    constants = {"S": np.array(49408, np.float32)} | ({} if masked else {"one": one})
    _save(path / "textual.onnx", nodes, [ids, mask] if masked else [ids], weights, **constants)


def _visual(path, weights=IMAGE_WEIGHTS):
    """Means over quarters of the image @ W."""
    pixels = helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    half = SIDE // 2
    nodes = [
        helper.make_node("AveragePool", ["pixel_values"], ["p"], kernel_shape=[half, half], strides=[half, half]),
        helper.make_node("Flatten", ["p"], ["f"], axis=1),
        helper.make_node("MatMul", ["f", "W"], ["y"]),
    ]
    _save(path / "visual.onnx", nodes, [pixels], weights, weights.shape[1])


def _vocabulary(path):
    with gzip.open(path / VOCABULARY, "wt", encoding="utf-8") as file:
        file.write("#version\nc a\nca t</w>\n")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny")
    _textual(path)
    _visual(path)
    _vocabulary(path)
    return path


def _expected_texts(directory, texts):
    numbers, mask = ClipTokens(directory)(texts, 77)
    return ((numbers * mask).astype(np.float32) / 49408) @ TEXT_WEIGHTS


def _expected_image(image):
    """CLIP's preprocessing said once more, on an image that needs no resizing but a crop."""
    left, top = ((31 + 1) // 2 if edge == SIDE + 31 else (edge - SIDE) // 2 for edge in image.size)  # as torchvision
    pixels = np.asarray(image.convert("RGB"), np.float64)[top : top + SIDE, left : left + SIDE] / 255
    normal = ((pixels - MEAN) / DEVIATION).transpose(2, 0, 1)
    return normal.reshape(3, 2, SIDE // 2, 2, SIDE // 2).mean(axis=(2, 4)).reshape(1, -1) @ IMAGE_WEIGHTS


def test_texts_go_through_the_textual_model(directory):
    texts = [f"cat number {at}" for at in range(70)]
    rows = load(f"onnx:{directory}").encode_texts(texts)
    assert rows.dtype == np.float32
    assert np.allclose(rows, _expected_texts(directory, texts), atol=1e-5)


@pytest.mark.parametrize("size", [(SIDE, SIDE), (SIDE + 10, SIDE), (SIDE, SIDE + 31)])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_images_are_cut_and_normalised(directory, size, mode):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    assert np.allclose(Onnx(directory).encode_images([image]), _expected_image(image), atol=1e-4)


def test_images_are_resized_by_their_shorter_side(directory):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 100, 3), np.uint8))
    resized = image.resize((50, SIDE), Image.Resampling.BICUBIC)
    encoder = Onnx(directory)
    assert np.allclose(encoder.encode_images([image] * 40), encoder.encode_images([resized]), atol=1e-5)


@pytest.mark.parametrize(("kind", "masked"), [(TensorProto.INT64, True), (TensorProto.INT32, False)])
def test_models_may_take_other_integers_or_no_mask(tmp_path, kind, masked):
    _textual(tmp_path, kind, masked)
    _visual(tmp_path)
    _vocabulary(tmp_path)
    assert np.allclose(Onnx(tmp_path).encode_texts(["cat"]), _expected_texts(tmp_path, ["cat"]), atol=1e-5)


def test_nothing_gives_no_rows(directory):
    encoder = Onnx(directory)
    assert encoder.encode_texts([]).shape == encoder.encode_images([]).shape == (0, DIM)
    assert encoder.name == f"onnx/{directory.name}"
    assert encoder.for_model("any") is encoder


def test_a_missing_file_is_named(tmp_path):
    _vocabulary(tmp_path)
    _textual(tmp_path)
    with pytest.raises(ValueError, match=r"holds no visual\.onnx"):
        Onnx(tmp_path)


def test_widths_must_agree(tmp_path):
    _vocabulary(tmp_path)
    _textual(tmp_path)
    _visual(tmp_path, IMAGE_WEIGHTS[:, :5])
    with pytest.raises(ValueError, match=r"rows of 16 numbers, visual\.onnx of 5"):
        Onnx(tmp_path)


@pytest.mark.parametrize("name", ["clip", "onnx", "onnx:", ""])
def test_there_are_two_encoders(name):
    with pytest.raises(ValueError, match="no encoder"):
        load(name)


def test_a_server_runs_the_models(directory, raw):
    from casdk.server import serve
    from casdk.wire.jina_pb2 import DataRequestProto

    with serve(schemes=["grpc"], encoder=f"onnx:{directory}") as served, raw.channel(served) as channel:
        call = channel.unary_unary(raw.SINGLE, DataRequestProto.SerializeToString, DataRequestProto.FromString)
        pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        tensor = {"dense": {"buffer": pixels.tobytes(), "shape": pixels.shape, "dtype": "|u1"}}
        reply = call(raw.request("/encode", {"text": "cat"}, {"tensor": tensor}), timeout=raw.WAIT)
        text, image = (raw.row(made) for made in reply.data.docs.docs)
        assert np.allclose(text, _expected_texts(directory, ["cat"])[0], atol=1e-5)
        assert np.allclose(image, _expected_image(Image.fromarray(pixels))[0], atol=1e-4)


@pytest.mark.parametrize("size", [(1, 3_000_000), (3_000_000, 1), (2, 40), (500, 20)])
def test_a_line_of_pixels_is_not_blown_up(directory, size):
    """Resized whole, the first would have 32 x 96,000,000 pixels."""
    (row,) = Onnx(directory).encode_images([Image.new("RGB", size, (10, 200, 30))])
    (square,) = Onnx(directory).encode_images([Image.new("RGB", (SIDE, SIDE), (10, 200, 30))])
    assert np.allclose(row, square, atol=1e-4)


def test_a_long_text_costs_no_more_than_its_beginning(directory):
    words = "ca t " * 5000
    first, second = Onnx(directory).encode_texts([words, words + "日" * 30_000_000])
    assert np.array_equal(first, second)


@pytest.mark.soak
def test_images_are_decoded_one_by_one(directory, memory_of):
    out = io.BytesIO()
    Image.new("RGB", (3800, 3800)).save(out, "PNG")
    blob = base64.b64encode(out.getvalue()).decode()
    with serve(schemes=["http"], encoder=f"onnx:{directory}", max_memory=300_000_000) as served:
        peak = memory_of(served)
        answer = httpx.post(served.address("http") + "/post", json={"data": [{"blob": blob}] * 12}, timeout=60)
        assert len({tuple(document["embedding"]) for document in answer.json()["data"]}) == 1
        assert peak() < 550_000_000
