import base64
import copy
import io
import json
import pickle
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image as Pillow

from fuseline.errors import FuselineError
from fuseline.modalities import MediaRoot
from fuseline.modalities.image import Image

NO_FILES = MediaRoot(None)


def made(**options: object) -> Image:
    return Image.fit(Image.Config.model_validate({"size": 16, **options}), {"x": ""}, [], NO_FILES)


def photo(width: int = 40, height: int = 30, mode: str = "RGB") -> Pillow.Image:
    """Left half red, right half blue, a white bar on top."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, : width // 2, 0] = 255
    pixels[:, width // 2 :, 2] = 255
    pixels[: height // 4] = 255
    return Pillow.fromarray(pixels).convert(mode)


def save(image: Pillow.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def parse(data: object, **options: object) -> np.ndarray:
    value = made(**options).parse({"x": data}, NO_FILES)
    assert value is not None
    assert value.dtype == np.uint8
    assert value.shape[2] == 3
    return np.asarray(value)


def outcome(data: bytes) -> str:
    try:
        made(max_pixels=10_000_000).parse({"x": data}, NO_FILES)
    except FuselineError as error:
        return error.code
    return "read"


def fails(data: object, **options: object) -> FuselineError:
    with pytest.raises(FuselineError) as caught:
        made(**options).parse({"x": data}, NO_FILES)
    assert caught.value.code == "bad_cell"
    assert caught.value.column == "x"
    return caught.value


def png_header(width: int, height: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_every_format_gives_the_same_picture(kind: str) -> None:
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    value = parse(save(photo(), kind, **options)).astype(int)
    wanted = np.asarray(photo().resize((16, 16), Pillow.Resampling.BILINEAR)).astype(int)
    assert np.abs(value - wanted).mean() < 6
    assert value[12, 2, 0] > 200
    assert value[12, 13, 2] > 200


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "YCbCr", "RGBA", "LA", "I;16", "HSV", "LAB"])
def test_every_mode_is_read(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "TIFF" if mode in ("HSV", "LAB") else "PNG"
    image = photo(mode="L").convert("I").convert("I;16") if mode == "I;16" else photo(mode=mode)
    if mode == "HSV":
        image = Pillow.merge("RGB", photo().split())
    value = parse(save(image, kind))
    assert value.shape == (16, 16, 3)
    assert value[0].mean() > 200, "the white bar stays white"
    assert value[12].mean() < 150


def test_transparent_is_white() -> None:
    clear = Pillow.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert (parse(save(clear, "PNG")) == 255).all()
    palette = photo().convert("P")
    assert (parse(save(Pillow.new("P", (8, 8), 0), "GIF", transparency=0)) == 255).all()
    assert parse(save(palette, "PNG", transparency=bytes(256))).min() == 255


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
def test_exif_orientation_is_honoured(orientation: int, resize: str) -> None:
    upright = photo(64, 32)
    undo = {
        2: Pillow.Transpose.FLIP_LEFT_RIGHT,
        3: Pillow.Transpose.ROTATE_180,
        4: Pillow.Transpose.FLIP_TOP_BOTTOM,
        5: Pillow.Transpose.TRANSPOSE,
        6: Pillow.Transpose.ROTATE_90,
        7: Pillow.Transpose.TRANSVERSE,
        8: Pillow.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Pillow.Exif()
    exif[274] = orientation
    wanted = parse(save(upright, "PNG"), resize=resize).astype(int)
    for kind in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        got = parse(save(stored, kind, exif=exif, **options), resize=resize).astype(int)
        assert np.abs(got - wanted).max() <= 1, kind


def test_broken_exif_is_no_harm() -> None:
    for exif in (
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM",
        b"Exif\0\0",
        b"nonsense",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
    ):
        assert (parse(save(photo(), "JPEG", exif=exif)) == parse(save(photo(), "JPEG"))).all()


def test_resizing_keeps_what_it_says() -> None:
    wide = Pillow.new("RGB", (40, 20), (200, 200, 200))
    padded = parse(save(wide, "PNG"), resize="pad")
    assert (padded[4:12] == 200).all()
    assert (padded[:4] == 0).all()
    assert (padded[12:] == 0).all()
    edges = Pillow.new("RGB", (40, 20), (0, 0, 0))
    edges.paste((255, 255, 255), (10, 0, 30, 20))
    assert (parse(save(edges, "PNG"), resize="crop")[:, 1:-1] == 255).all()
    assert parse(save(edges, "PNG"))[:, :3].max() == 0


def test_shrinking_is_antialiased() -> None:
    stripes = np.zeros((320, 320, 3), np.uint8)
    stripes[:, ::2] = 255
    value = parse(save(Pillow.fromarray(stripes), "PNG"))
    assert np.abs(value.astype(int) - 127).max() < 8


def test_a_large_jpeg_decodes_small_and_the_same_each_time() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    large = Pillow.fromarray(noise).resize((640, 512), Pillow.Resampling.BICUBIC)
    data = save(large, "JPEG", quality=95)
    first, second = parse(data), parse(data)
    assert (first == second).all()
    exact = np.asarray(large.resize((16, 16), Pillow.Resampling.BILINEAR)).astype(int)
    assert np.abs(first - exact).mean() < 3


def test_deep_pictures_span_their_own_range() -> None:
    ramp = np.linspace(1000, 1255, 256, dtype=np.uint16).reshape(16, 16)
    value = parse(save(Pillow.fromarray(ramp), "TIFF"))
    assert (value[..., 0].ravel() == np.arange(256)).all()
    assert (parse(save(Pillow.fromarray(ramp), "PNG")) == value).all()
    floats = (ramp.astype(np.float32) - 1100) * 1e30
    floats[0, 0] = np.nan
    assert np.abs(parse(save(Pillow.fromarray(floats), "TIFF")).astype(int) - value)[1:].max() <= 1
    assert (parse(save(Pillow.fromarray(np.full((4, 4), 77, np.uint16)), "TIFF")) == 0).all()
    assert "finite" in fails(save(Pillow.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF")).message
    assert parse(save(Pillow.fromarray(ramp.astype(np.int32)), "TIFF")).max() == 255


def test_the_first_frame_of_several() -> None:
    red, blue = Pillow.new("RGB", (9, 9), (255, 0, 0)), Pillow.new("RGB", (9, 9), (0, 0, 255))
    for kind in ("GIF", "TIFF"):
        assert (parse(save(red, kind, save_all=True, append_images=[blue]))[5, 5] == (255, 0, 0)).all()


def test_one_pixel_is_a_picture() -> None:
    for resize in ("stretch", "crop", "pad"):
        assert (parse(save(Pillow.new("RGB", (1, 1), (9, 8, 7)), "PNG"), resize=resize)[8, 8] == (9, 8, 7)).all()
    assert parse(save(Pillow.new("RGB", (1, 5000), 255), "PNG"), resize="pad").shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_truncated_pictures_are_named(kind: str, share: float) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = save(Pillow.fromarray(noise), kind)
    error = fails(data[: max(1, int(len(data) * share))])
    assert "picture" in error.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
def test_damaged_pictures_give_pixels_or_the_named_error(kind: str) -> None:
    data = save(photo(), kind)
    random = np.random.default_rng(2)
    outcomes = set()
    for _ in range(150):
        broken = bytearray(data)
        for place in random.integers(0, len(data), 4):
            broken[place] = random.integers(0, 256)
        outcomes.add(outcome(bytes(broken)))
    assert outcomes <= {"read", "bad_cell"}
    assert "bad_cell" in outcomes


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>not found</html>", "web page"),
        (b"just some words", "just some words"),
        (bytes(50), "00 00"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n" * 20, "no picture"),
        (b"\xff\xd8\xff", "cannot read"),
        (base64.b64encode(b"hello there, this is text").decode(), "no picture"),
    ],
)
def test_what_is_no_picture(data: object, words: str) -> None:
    assert words in fails(data).message


@pytest.mark.parametrize("side", [9_500, 12_000, 20_000, 1_000_000])
def test_bombs_are_refused_by_their_header(side: int) -> None:
    # 9,500 squared is above Pillow's own warning limit and below ours: it must neither warn nor name the wrong reason.
    error = fails(png_header(side, side))
    assert ("pixels, more than 100,000,000" in error.message) == (side > 10_000)


def test_absent_cells_and_the_dummy() -> None:
    image = made()
    for cell in (None, "", "  ", float("nan"), {"bytes": None, "path": None}):
        assert image.parse({"x": cell}, NO_FILES) is None
    assert image.parse({}, NO_FILES) is None
    value = image.parse({"x": save(photo(), "PNG")}, NO_FILES)
    batch = image.collate([None, value])
    assert {k: (v.dtype, v.shape) for k, v in batch.items()} == {"pixels": (np.uint8, (2, 16, 16, 3))}
    assert type(batch["pixels"]) is np.ndarray
    assert (batch["pixels"][0] == 0).all()
    assert (batch["pixels"][1] == value).all()
    spec = image.arrays()["pixels"]
    assert (spec.dtype, spec.shape) == ("uint8", ("B", 16, 16, 3))


def test_state_goes_through_json() -> None:
    image = made(resize="pad", max_bytes=12345)
    again = Image.from_state(json.loads(json.dumps(image.state(), sort_keys=True)))
    assert again.state() == image.state()
    data = save(photo(), "PNG")
    assert (again.parse({"x": data}, NO_FILES) == image.parse({"x": data}, NO_FILES)).all()


def test_summary_digest_and_size() -> None:
    image = made()
    value = image.parse({"x": save(photo(), "PNG")}, NO_FILES)
    same = image.parse({"x": save(photo(), "BMP")}, NO_FILES)
    other = image.parse({"x": save(photo().rotate(90), "PNG")}, NO_FILES)
    assert value is not None
    assert same is not None
    assert other is not None
    assert image.digest(value) == image.digest(same) != image.digest(other)
    assert image.size(value) == 256
    summary = image.summary(value)
    assert (summary["width"], summary["height"]) == (40, 30)
    assert summary["brightness"] == pytest.approx(np.asarray(value).mean() / 255)
    for kept in (copy.deepcopy(value), pickle.loads(pickle.dumps(value))):
        assert image.summary(kept) == summary


def test_parsing_is_thread_safe() -> None:
    image = made()
    data = [save(photo().rotate(i), "JPEG") for i in range(24)]
    wanted = [image.digest(image.parse({"x": d}, NO_FILES)) for d in data]  # type: ignore[arg-type]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda d: image.digest(image.parse({"x": d}, NO_FILES)), data)) == wanted  # type: ignore[arg-type]


def dicom(pixels: np.ndarray, kind: str = "MONOCHROME2", **tags: object) -> bytes:
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("x", {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    data.Rows, data.Columns = pixels.shape[:2]
    bits = pixels.dtype.itemsize * 8
    data.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    data.PhotometricInterpretation = kind
    data.BitsAllocated = data.BitsStored = bits
    data.HighBit, data.PixelRepresentation = bits - 1, 0
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    data.PixelData = pixels.tobytes()
    for name, value in tags.items():
        setattr(data, name, value)
    out = io.BytesIO()
    pydicom.dcmwrite(out, data, enforce_file_format=True)
    return out.getvalue()


def test_dicom() -> None:
    ramp = np.linspace(0, 4080, 256, dtype=np.uint16).reshape(16, 16)
    wanted = np.repeat(np.arange(256).reshape(16, 16, 1), 3, axis=2)
    assert (parse(dicom(ramp)) == wanted).all()
    assert (parse(dicom(ramp, "MONOCHROME1")) == 255 - wanted).all()
    windowed = parse(dicom(ramp, WindowCenter=2040, WindowWidth=1000)).astype(int)
    assert (windowed[:4] == 0).all()
    assert (windowed[-4:] == 255).all()
    colour = np.asarray(photo(16, 16))
    assert (parse(dicom(colour, "RGB")) == colour).all()


def test_broken_dicom() -> None:
    data = dicom(np.zeros((16, 16), np.uint16))
    assert "DICOM" in fails(data[:-100]).message
    assert "DICOM" in fails(data[:140]).message
    assert "pixels" in fails(data, max_pixels=100).message
    assert "DICOM" in fails(dicom(np.zeros((16, 16), np.uint16), Rows=60000, Columns=1600)).message
    deflated = data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"[:20])
    assert deflated != data
    assert "deflated" in fails(data[:200] + b"1.2.840.10008.1.2.1.99" + data[200:]).message
    far = data[:140] + b"1" * 3000 + b"1.2.840.10008.1.2.1.99" + data[140:]
    assert "deflated" in fails(far).message, "behind a long field, too"


def test_dicom_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    data = dicom(np.zeros((4, 4), np.uint16))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(FuselineError, match=r"fuseline\[dicom\]") as caught:
        made().parse({"x": data}, NO_FILES)
    assert caught.value.code == "missing_extra"


@pytest.mark.parametrize(("orientation", "size"), [(1, (40, 30)), (3, (40, 30)), (6, (30, 40)), (8, (30, 40))])
def test_sides_are_those_of_the_picture_as_it_is_seen(orientation: int, size: tuple[int, int]) -> None:
    exif = Pillow.Exif()
    exif[274] = orientation
    image = made(sides=True)
    value = image.parse({"x": save(photo(), "JPEG", exif=exif)}, NO_FILES)
    batch = image.collate([value, None, np.zeros((16, 16, 3), np.uint8)])
    assert batch["sides"].dtype == np.float32
    assert batch["sides"].tolist() == [list(size), [16, 16], [16, 16]]
    assert batch.keys() == image.arrays().keys()


def test_where_sides_are_handed_over_they_are_content() -> None:
    """The same pixels of a larger picture are another value: boxes in it are elsewhere."""
    white = [save(Pillow.new("RGB", size, "white"), "PNG") for size in ((40, 40), (80, 80))]
    for sides in (False, True):
        image = made(sides=sides)
        small, large = (image.parse({"x": w}, NO_FILES) for w in white)
        assert small is not None
        assert large is not None
        assert (image.digest(small) == image.digest(large)) is not sides
