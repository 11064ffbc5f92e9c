"""Images of every accepted format are decoded within their limits, and all others are refused."""

import io
import struct
import threading
import zlib

import numpy as np
import pytest
from casdk.server import images
from casdk.server.images import ImageReader
from casdk.server.memory import Memory
from casdk.server.settings import Settings
from casdk.wire.docarray_pb2 import DocumentProto
from PIL import Image, TiffImagePlugin

PIXELS = np.random.default_rng(1).integers(0, 256, (6, 5, 3), np.uint8)


@pytest.fixture
def reader():
    return ImageReader(max_pixels=100, memory=Memory(1 << 20, "images"))


def read(reader, name, document):
    with reader.open(name, document, 0) as image:
        return image.copy()


def _tensor(array, dtype=None):
    dense = {"buffer": array.tobytes(), "shape": array.shape, "dtype": dtype or array.dtype.str}
    return DocumentProto(tensor={"dense": dense})


@pytest.mark.parametrize("dtype", ["u1", "<i8", "<f4", "<f8", ">i2"])
def test_tensors_of_any_number_type(reader, dtype):
    assert np.array_equal(np.asarray(read(reader, "d", _tensor(PIXELS.astype(dtype)))), PIXELS)


@pytest.mark.parametrize(("shape", "mode"), [((4, 5), "L"), ((4, 5, 1), "L"), ((4, 5, 3), "RGB"), ((4, 5, 4), "RGBA")])
def test_tensors_of_any_image_shape(reader, shape, mode):
    image = read(reader, "d", _tensor(np.zeros(shape, np.uint8)))
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
        read(reader, "document 3", document)
    assert words in str(error.value)


@pytest.mark.filterwarnings("ignore:Truncated File Read")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_a_broken_image_is_named(reader, kind):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind)
    assert read(reader, "d", DocumentProto(blob=out.getvalue())).size == (5, 6)
    with pytest.raises(ValueError, match=r"^document 3: "):
        read(reader, "document 3", DocumentProto(blob=out.getvalue()[: len(out.getvalue()) // 3]))


def test_a_percent_encoded_data_uri_is_read(reader):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, "PNG")
    uri = "data:image/png," + "".join(f"%{byte:02x}" for byte in out.getvalue())
    assert np.array_equal(np.asarray(read(reader, "d", DocumentProto(uri=uri))), PIXELS)


def _tiff(*entries, size=0):
    """Return a TIFF of 10 x 10 grey pixels with more entries: tag, type, count, value."""
    usual = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (262, 3, 1, 1)]
    told = sorted({entry[0]: entry for entry in (*usual, *entries)}.values())
    head = b"II*\0" + struct.pack("<IH", 8, len(told)) + b"".join(struct.pack("<HHII", *entry) for entry in told)
    return (head + bytes(4)).ljust(size, b"\0")


def _many_scans(times):
    out = io.BytesIO()
    Image.new("L", (64, 64), 77).save(out, "JPEG", progressive=True)
    data = out.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * times + data[-2:]


def _large_frame():
    """A GIF whose screen is one pixel, and whose frame is 30,000 x 30,000."""
    return b"GIF89a\1\0\1\0\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0\x30\x75\x30\x75\0\2\2D\1\0;"


def _saved(kind):
    out = io.BytesIO()
    Image.fromarray(PIXELS).save(out, kind)
    return out.getvalue()


def _chunk(kind, data=b""):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _between(kind, at, more):
    """Return an image of a format with more at a place, which is counted from its end if it is negative."""
    data = _saved(kind)
    return data[:at] + more + data[at:]


def _run_length_bmp(data):
    head = struct.pack("<IiiHHIIiiII", 40, 89_000, 10, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078) + head + bytes(1024) + data


def _big_tiff(*entries):
    head = b"II+\0" + struct.pack("<HHQQ", 8, 0, 16, len(entries))
    return head + b"".join(struct.pack("<HHQQ", *entry) for entry in entries) + bytes(8)


STRIPS = 1 << 20
MANY, PIECES = "is in too many pieces", "more than 64 pieces of Exif"
TILES = [(259, 3, 1, 32773), (324, 4, 1, 0), (325, 4, 1, 200)]
HOSTILE = {
    "a tile of 900 megapixels": (_tiff(*TILES, (322, 4, 1, 30_000), (323, 4, 1, 30_000)), "exceeds the limit"),
    "a tile of 2 ** 64 pixels": (_tiff(*TILES, (322, 4, 1, 2**32 - 1), (323, 4, 1, 2**32 - 1)), "exceeds the limit"),
    "a thousand scans": (_many_scans(1000), "more than 64 scans"),
    "a frame larger than the screen": (_large_frame(), "limit"),
    "PostScript": (_saved("EPS"), "no image that Pillow knows as one of"),
    "a strip for each row": (_tiff((273, 4, STRIPS, 8), size=4 * STRIPS), "more than 131072 strips"),
    "strips that are bytes": (_tiff((273, 1, STRIPS, 8), size=4 * STRIPS), "more than 131072 strips"),
    "a tile for each row": (_tiff((324, 3, STRIPS, 8), size=4 * STRIPS), "more than 131072 strips"),
    "a directory that is cut": (_tiff((273, 4, STRIPS, 8), size=4 * STRIPS)[:-7], "more than 131072 strips"),
    "rationals": (_tiff((282, 5, STRIPS, 8), size=8 * STRIPS), "more than 131072 strips"),
    "strips of a BigTIFF": (_big_tiff((256, 4, 1, 10), (273, 4, STRIPS, 16)) + bytes(4 * STRIPS), "more than 131072"),
    "empty chunks": (_between("PNG", 33, _chunk(b"tinY") * 30_000), MANY),
    "empty chunks after the pixels": (_between("PNG", -12, _chunk(b"tinY") * 30_000), MANY),
    "short comments": (_between("GIF", -1, b"").replace(b",\0\0", b"!\xfe\1c\0" * 30_000 + b",\0\0", 1), MANY),
    "bytes that fill": (_between("JPEG", 2, b"\xff" * 100_000), MANY),
    "empty segments": (_between("JPEG", 2, b"\xff\xfe\0\2" * 30_000), MANY),
    "Exif in pieces": (_between("JPEG", 2, b"\xff\xe1\x10\0Exif\0\0".ljust(4098) * 65), PIECES),
    "run lengths": (_run_length_bmp(b"\1\1" * 1000), "a compressed BMP"),
    "a format decoded in Python": (_saved("QOI"), "no image that Pillow knows as one of"),
    "numbers as text": (b"P3 9 9 255 " + b"1 " * 243, "no image that Pillow knows as one of"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_header_is_not_believed(name):
    reader = ImageReader(max_pixels=1_000_000, memory=Memory(1 << 30, "images"))
    data, words = HOSTILE[name]
    with pytest.raises(ValueError, match=rf"^d: .*{words}"):
        read(reader, "d", DocumentProto(blob=data))


def test_a_format_that_reads_its_bytes_over_and_over_is_stopped():
    source = images._Source(bytes(1 << 20))
    for _ in range(5):
        source.seek(0)
        assert len(source.read()) == 1 << 20
    source.seek(0)
    with pytest.raises(ValueError, match="over and over"):
        source.read(1)


def test_long_texts_and_many_rows_of_a_tiff_are_no_attack():
    out = io.BytesIO()
    described = TiffImagePlugin.ImageFileDirectory_v2()
    described[270], described[700] = "a description " * 20_000, bytes(200_000)
    Image.new("L", (50, 3000)).save(out, "TIFF", tiffinfo=described, strip_size=50)
    reader = ImageReader(max_pixels=1_000_000, memory=Memory(1 << 30, "images"))
    assert read(reader, "d", DocumentProto(blob=out.getvalue())).size == (50, 3000)


MODES = {
    "PNG": "1 L LA P RGB RGBA I;16",
    "JPEG": "L RGB CMYK",
    "GIF": "1 L P RGB",
    "BMP": "1 L P RGB",
    "TIFF": "1 L LA P RGB RGBA CMYK F I;16",
    "WEBP": "L RGB RGBA",
    "AVIF": "RGB RGBA",
}


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in MODES.items() for mode in modes.split()])
def test_every_mode_of_every_format_is_read(kind, mode):
    out = io.BytesIO()
    Image.fromarray(PIXELS).convert("L" if mode == "I;16" else mode).convert(mode).save(out, kind)
    reader = ImageReader(max_pixels=100, memory=Memory(1 << 20, "images"))
    assert read(reader, "d", DocumentProto(blob=out.getvalue())).size == (5, 6)


def test_what_an_image_takes_is_held_while_it_is_open(reader):
    memory = Memory(7 * 6 * images.PIXEL_BYTES["PNG"] * 2, "decoding images")
    reader = ImageReader(max_pixels=10_000, memory=memory)
    out = io.BytesIO()
    Image.new("RGB", (7, 6)).save(out, "PNG")
    with (
        reader.open("a", DocumentProto(blob=out.getvalue()), 0),
        reader.open("b", DocumentProto(blob=out.getvalue()), 0),
    ):
        waiting = threading.Thread(target=read, args=(reader, "c", DocumentProto(blob=out.getvalue())))
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(20)
    assert not waiting.is_alive()
    large = io.BytesIO()
    Image.new("RGB", (70, 60)).save(large, "PNG")
    with pytest.raises(ValueError, match="this takes about 0 MiB, and the server has 0 MiB for decoding images"):
        read(reader, "d", DocumentProto(blob=large.getvalue()))


def test_the_largest_image_that_is_allowed_fits_the_memory_there_is():
    settings = Settings(ports={"grpc": 0})
    for kind in ("PNG", "GIF", "BMP"):
        assert settings.max_pixels * images.PIXEL_BYTES[kind] <= settings.image_memory
