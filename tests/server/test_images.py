import io

import numpy as np
import pytest
from casdk.server.images import ImageReader
from casdk.server.wire.docarray_pb2 import DocumentProto
from PIL import Image

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)


@pytest.fixture
def reader():
    reader = ImageReader(max_pixels=100, max_bytes=1000)
    yield reader
    reader.close()


def _tensor(array, dtype=None):
    dense = {"buffer": array.tobytes(), "shape": array.shape, "dtype": dtype or array.dtype.str}
    return DocumentProto(tensor={"dense": dense})


@pytest.mark.parametrize("dtype", ["u1", "<i8", "<f4", "<f8", ">i2"])
def test_tensors_of_any_number_type(reader, dtype):
    assert np.array_equal(np.asarray(reader.read("d", _tensor(PIXELS.astype(dtype)))), PIXELS)


@pytest.mark.parametrize(("shape", "mode"), [((4, 5), "L"), ((4, 5, 1), "L"), ((4, 5, 3), "RGB"), ((4, 5, 4), "RGBA")])
def test_tensors_of_any_image_shape(reader, shape, mode):
    image = reader.read("d", _tensor(np.zeros(shape, np.uint8)))
    assert (image.mode, image.size) == (mode, (5, 4))


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (_tensor(np.zeros((4, 5, 2), np.uint8)), "is no image"),
        (_tensor(np.zeros(4, np.uint8)), "is no image"),
        (_tensor(np.zeros((0, 5, 3), np.uint8)), "no pixels"),
        (_tensor(np.full((4, 5), 256)), "outside 0..255"),
        (_tensor(np.full((4, 5), np.nan)), "outside 0..255"),
        (_tensor(np.zeros((4, 5)), "<U1"), "holds no numbers"),
        (_tensor(np.zeros((4, 5)), "nonsense"), "nonsense"),
        (_tensor(np.zeros((11, 10), np.uint8)), "limit of 100 pixels"),
        (DocumentProto(tensor={"dense": {"buffer": b"123", "shape": [2, 2], "dtype": "|u1"}}), "reshape"),
        (DocumentProto(tensor={"dense": {"buffer": b"", "shape": [2**31, 2**31, 3], "dtype": "|u1"}}), ""),
        (DocumentProto(tensor={"sparse": {}}), "not dense"),
        (DocumentProto(blob=b"GIF89a"), "no image"),
        (DocumentProto(uri="data:image/png;base64,####"), ""),
        (DocumentProto(uri="data:image/png"), "no comma"),
        (DocumentProto(uri="ftp://h/x.png"), "reads no files"),
        (DocumentProto(uri="http://[bad"), ""),
    ],
)
def test_what_is_no_image_is_a_value_error_that_names_the_document(reader, document, words):
    with pytest.raises(ValueError, match=r"^document 3: ") as error:
        reader.read("document 3", document)
    assert words in str(error.value)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_broken_image_is_named(reader, kind):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind)
    assert reader.read("d", DocumentProto(blob=out.getvalue())).size == (5, 6)
    with pytest.raises(ValueError, match=r"^document 3: "):
        reader.read("document 3", DocumentProto(blob=out.getvalue()[: len(out.getvalue()) // 3]))


def test_a_percent_encoded_data_uri_is_read(reader):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG")
    uri = "data:image/png," + "".join(f"%{byte:02x}" for byte in out.getvalue())
    assert np.array_equal(np.asarray(reader.read("d", DocumentProto(uri=uri))), PIXELS)
