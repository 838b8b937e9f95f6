"""Whatever a person may upload: the right pixels, or one DataError sentence."""

from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from iekd import data
from iekd.data import decoding
from iekd.data.decoding import formats, head_is_image, open_image, suffixes, to_array, white_of
from iekd.errors import DataError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(mode: str = "RGB", size: tuple[int, int] = (16, 16), seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def quarters() -> np.ndarray:
    """16 x 16: red, green / blue, white."""
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8, :8], pixels[:8, 8:], pixels[8:, :8], pixels[8:, 8:] = RED, GREEN, BLUE, WHITE
    return pixels


def test_a_colour_png_is_itself():
    np.testing.assert_array_equal(to_array(encoded(noise()), 16, 3), np.asarray(noise()))


def test_a_grey_png_is_itself_and_repeats_in_colour():
    grey = np.asarray(noise("L"))
    np.testing.assert_array_equal(to_array(encoded(noise("L")), 16, 1)[..., 0], grey)
    np.testing.assert_array_equal(to_array(encoded(noise("L")), 16, 3), np.repeat(grey[..., None], 3, 2))


def test_colour_becomes_grey_by_brightness():
    rgb = np.asarray(noise(), np.float64)
    expected = rgb @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(to_array(encoded(noise()), 16, 1)[..., 0], expected, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_every_format_shows_the_same_picture(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 98, "subsampling": 0} if kind == "JPEG" else {}
    seen = to_array(encoded(Image.fromarray(quarters()), kind, **options), 16, 3)
    np.testing.assert_allclose(seen.astype(int), quarters().astype(int), atol=12 if kind == "JPEG" else 0)


@pytest.mark.parametrize("kind", ["path", "string", "bytes", "array", "image"])
def test_every_way_to_hand_over_a_picture(kind, tmp_path):
    picture, file = noise(), tmp_path / "a b ü.png"
    picture.save(file)
    source = {
        "path": file,
        "string": str(file),
        "bytes": file.read_bytes(),
        "array": np.asarray(picture),
        "image": picture,
    }
    np.testing.assert_array_equal(to_array(source[kind], 16, 3), np.asarray(picture))


def test_a_printers_jpeg_has_screen_colours():
    """CMYK: full cyan ink is (0, 255, 255) on a screen."""
    ink = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    seen = to_array(encoded(ink, "JPEG", quality=95), 16, 3)
    np.testing.assert_allclose(seen.reshape(-1, 3).mean(0), (0, 255, 255), atol=3)


def test_sixteen_bits_are_scaled_not_clipped():
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    seen = to_array(encoded(Image.fromarray(ramp)), 16, 1)[..., 0]
    np.testing.assert_allclose(seen.astype(float), ramp / 257.0, atol=0.51)


def test_black_and_white_is_black_and_white():
    bits = np.asarray(noise("L")) > 127
    seen = to_array(encoded(Image.fromarray(bits)), 16, 1)[..., 0]
    np.testing.assert_array_equal(seen, bits * np.uint8(255))


def test_transparency_is_white():
    rgba = np.dstack([quarters(), np.full((16, 16), 255, np.uint8)])
    rgba[:8, :, 3] = 0
    expected = quarters()
    expected[:8] = WHITE
    np.testing.assert_array_equal(to_array(encoded(Image.fromarray(rgba)), 16, 3), expected)


def test_half_transparency_is_half_white():
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 3] = 128
    np.testing.assert_allclose(to_array(encoded(Image.fromarray(rgba)), 16, 3).astype(float), 127, atol=1)


def test_grey_with_transparency_is_white_where_it_is_clear():
    clear = Image.new("LA", (16, 16), (0, 0))
    assert (to_array(encoded(clear), 16, 1) == 255).all()


def test_a_palette_shows_its_colours_and_white_where_it_is_clear():
    palette = Image.fromarray(quarters()).convert("P", palette=Image.Palette.ADAPTIVE, colors=4)
    np.testing.assert_array_equal(to_array(encoded(palette), 16, 3), quarters())
    red = palette.getpixel((0, 0))
    expected = quarters()
    expected[:8, :8] = WHITE
    np.testing.assert_array_equal(to_array(encoded(palette, transparency=red), 16, 3), expected)


@pytest.mark.parametrize(("mode", "clear"), [("RGB", (255, 0, 0)), ("L", 0)])
def test_one_colour_declared_transparent_is_white(mode, clear):
    """A PNG without an alpha channel may name one colour as clear (tRNS)."""
    picture = Image.new(mode, (16, 16), clear)
    assert (to_array(encoded(picture, transparency=clear), 16, 3) == 255).all()


ORIENTED = {
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud,
    5: lambda a: a.swapaxes(0, 1), 6: np.rot90, 7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}  # fmt: skip


@pytest.mark.parametrize("turned", ORIENTED)
def test_a_phones_picture_stands_upright(turned):
    """EXIF orientation n: the stored rows are the upright picture seen through ORIENTED[n]."""
    exif = Image.Exif()
    exif[0x0112] = turned
    stored = np.ascontiguousarray(ORIENTED[turned](quarters()))
    np.testing.assert_array_equal(to_array(encoded(Image.fromarray(stored), exif=exif), 16, 3), quarters())


def test_the_first_picture_of_an_animation_counts():
    frames = [Image.new("RGB", (16, 16), colour) for colour in (RED, BLUE, GREEN)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    np.testing.assert_array_equal(to_array(moving, 16, 3)[0, 0], RED)


def test_a_wide_picture_is_cut_to_its_middle():
    pixels = np.zeros((16, 48, 3), np.uint8)
    pixels[:, :16], pixels[:, 16:32], pixels[:, 32:] = RED, GREEN, BLUE
    seen = to_array(Image.fromarray(pixels), 16, 3)
    np.testing.assert_array_equal(seen, np.broadcast_to(np.uint8(GREEN), (16, 16, 3)))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 5), (1000, 900)])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_size_becomes_the_size_of_the_run(size, channels):
    seen = to_array(Image.new("RGB", size, (10, 20, 30)), 28, channels)
    assert seen.shape == (28, 28, channels)
    assert seen.dtype == np.uint8
    if channels == 3:
        assert (seen == (10, 20, 30)).all()


def huge_png(side: int) -> bytes:
    """A side x side black PNG of a few kilobytes: one bit a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    row = b"\0" * (1 + (side + 7) // 8)
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [4_500, 13_000, 20_000])
def test_a_small_file_of_a_huge_picture_is_refused(side, refuses):
    content = huge_png(side)
    assert len(content) < 200_000
    refuses(lambda: open_image(content, "bomb.png"), "bomb.png", "million pixels", kind=DataError)


def test_the_huge_png_of_the_test_is_a_png():
    assert open_image(huge_png(400)).size == (400, 400)


def test_a_large_photograph_is_accepted():
    assert to_array(huge_png(4_400), 32, 1).shape == (32, 32, 1)


PNG = encoded(noise())
NO_IMAGES = {
    "empty": b"",
    "text": b"hello",
    "html": b"<!DOCTYPE html><html><body>not found</body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9" height="9"/></svg>',
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "pdf": b"%PDF-1.4\n%%EOF",
    "zip": b"PK\x03\x04" + b"\0" * 40,
    "ico": encoded(noise(), "ICO"),
    "signature alone": PNG[:8],
    "header alone": PNG[:40],
    "half": PNG[: len(PNG) // 2],
    "half a jpeg": encoded(noise(), "JPEG")[:400],
    "half a gif": encoded(noise(), "GIF")[:300],
    "half a webp": encoded(noise(), "WEBP")[:100],
    "half a bmp": encoded(noise(), "BMP")[:100],
    "zeros": b"\0" * 1000,
}


@pytest.mark.parametrize("name", NO_IMAGES)
def test_what_is_no_image_gets_a_sentence(name, tmp_path, refuses):
    file = tmp_path / "picture.png"
    file.write_bytes(NO_IMAGES[name])
    refuses(lambda: to_array(file, 16, 3), "picture.png", kind=DataError)
    refuses(lambda: to_array(NO_IMAGES[name], 16, 3, "my upload"), "my upload", kind=DataError)


def test_no_file_and_a_folder_get_a_sentence(tmp_path, refuses):
    refuses(lambda: to_array(tmp_path / "none.png", 16, 3), "none.png", "no file", kind=DataError)
    refuses(lambda: to_array(tmp_path, 16, 3), tmp_path.name, kind=DataError)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.float64), np.zeros((2, 3, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_arrays_that_are_no_picture_get_a_sentence(array, refuses):
    with contextlib.suppress(DataError):
        assert to_array(array, 16, 3).shape == (16, 16, 3)


def upright(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a picture"
    return encoded(noise(), kind, **({"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}))


WHOLE = {kind: upright(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP")}


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(list(WHOLE)),
    st.lists(st.tuples(st.integers(0, 255), st.integers(0, 255)), max_size=6),
    st.integers(0, 3000) | st.none(),
)
def test_damaged_files_give_a_picture_or_a_sentence(kind, changes, end):
    damaged = bytearray(WHOLE[kind])
    for place, value in changes:
        damaged[min(place, len(damaged) - 1)] = value
    with contextlib.suppress(DataError):
        assert to_array(bytes(damaged[:end]), 16, 3).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_damage_in_the_note_of_a_camera_is_no_reason_to_crash(kind):
    """Any one byte of the EXIF block overwritten: a picture or a DataError."""
    whole = WHOLE[kind]
    start = whole.index(b"Exif" if kind == "JPEG" else b"EXIF")
    for place in range(start + 4, min(len(whole), start + 90)):
        for value in (0, 255):
            damaged = whole[:place] + bytes([value]) + whole[place + 1 :]
            with contextlib.suppress(DataError):
                assert to_array(damaged, 16, 3).shape == (16, 16, 3)


def test_a_phones_photograph_is_decoded_small(tmp_path):
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (6000, 4000), (200, 30, 30)).save(path)
    image = open_image(path)
    assert (image.width, image.height) == (750, 500)
    assert to_array(path, 8, 3)[4, 4].tolist() == pytest.approx([200, 30, 30], abs=4)


def test_so_is_one_with_a_second_picture_behind_it(tmp_path):
    """As telephones write them."""
    path = tmp_path / "photo.jpg"
    first = Image.new("RGB", (6000, 4000), (200, 30, 30))
    first.save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))])
    assert open_image(path).size == (750, 500)
    first.resize((800, 600)).save(path, format="MPO", save_all=True, append_images=[Image.new("RGB", (60, 40))])
    assert open_image(path, side=16).size == (100, 75)
    assert to_array(path, 8, 3)[4, 4].tolist() == pytest.approx([200, 30, 30], abs=4)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_large_jpeg_is_decoded_as_small_as_is_needed_and_looks_the_same(mode, tmp_path, monkeypatch):
    y, x = np.mgrid[:600, :800] / 100.0
    waves = np.stack([np.sin(x * k + y * j) for k, j in ((1, 2), (3, 1), (2, 5))], -1) * 90 + 128
    grain = np.random.default_rng(0).integers(-20, 20, waves.shape)
    path = tmp_path / "photo.jpg"
    Image.fromarray((waves + grain).clip(0, 255).astype(np.uint8)).convert(mode).save(path, quality=90)
    assert open_image(path).size == (800, 600)
    assert open_image(path, side=16).size == (100, 75)
    assert open_image(path, side=36).size == (200, 150)
    assert open_image(path, side=200).size == (800, 600)
    small = to_array(path, 16, 3).astype(int)
    monkeypatch.setattr(decoding, "ENOUGH", 1000)
    whole = to_array(path, 16, 3)
    assert whole.std() > 20
    assert abs(small - whole).max() <= 3


# Files as people have them


@pytest.mark.parametrize(
    ("ending", "format"), [("tif", "TIFF"), ("tiff", "TIFF"), ("ppm", "PPM"), ("avif", "AVIF"), ("webp", "WEBP")]
)
def test_formats_beyond_the_web_are_read(ending, format):
    if format not in formats():
        pytest.skip(f"Pillow reads no {format} here")
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    assert f".{ending}" in suffixes()
    seen = to_array(encoded(image, format), 8, 3)
    assert np.abs(seen.astype(int) - (200, 100, 50)).max() <= 6


def test_programs_are_never_started_by_a_file():
    """EPS, PDF, WMF and others would reach readers that run other programs."""
    assert not {"EPS", "PDF", "WMF", "MPEG", "FITS"} & set(formats())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF"])
def test_files_without_an_ending_are_known_by_their_first_bytes(format):
    if format not in formats():
        pytest.skip(f"Pillow reads no {format} here")
    assert head_is_image(encoded(noise(), format)[:16])


@pytest.mark.parametrize(
    "head", [b"", b"hello world", b"%PDF-1.4", b"%!PS-Adobe", b"PK\3\4" + bytes(12), b"BMW cars of 19", b"P7 tickets"]
)
def test_other_files_without_an_ending_are_not_images(head):
    assert not head_is_image(head)


def wide(width: int = 24, height: int = 8) -> np.ndarray:
    """Red at the left end, black elsewhere."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[:, :4] = (255, 0, 0)
    return pixels


def test_what_becomes_of_an_image_that_is_not_square():
    source = encoded(Image.fromarray(wide()))
    crop, pad, squash = (to_array(source, 24, 3, "", fit) for fit in ("crop", "pad", "squash"))
    assert crop.shape == pad.shape == squash.shape == (24, 24, 3)
    assert crop.max() == 0, "its ends are cut off"
    assert pad[12, 0, 0] > 200
    assert pad[0].max() == pad[-1].max() == 0, "bars above and below"
    assert squash[0, 0, 0] > 200
    assert squash[-1, 0, 0] > 200


def deep(value: int) -> bytes:
    return encoded(Image.fromarray(np.full((8, 8), value, np.uint16)))


def test_one_white_level_for_images_of_more_than_8_bits(tmp_path):
    """A dark scene of a 12-bit camera stays dark, although no value in it needs more than 8 bits."""
    for split, (dark, bright) in {"train": (200, 4000), "test": (150, 3000)}.items():
        for name, value in (("dark", dark), ("bright", bright)):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(2):
                (tmp_path / split / name / f"{i}.png").write_bytes(deep(value + i))
    loaded = data.load(f"folder:{tmp_path}", resolution=8)
    assert (loaded.white, loaded.class_names) == (4095.0, ("bright", "dark"))
    assert loaded.train.images[loaded.train.labels == 1].max() == round(201 * 255 / 4095)
    assert loaded.train.images[loaded.train.labels == 0].min() == round(4000 * 255 / 4095)
    streamed = data.load(f"folder:{tmp_path}", resolution=8, image_memory=0.0)
    assert np.array_equal(streamed.test.images[np.arange(4)], loaded.test.images)
    assert to_array(deep(200), 8, 1, white=loaded.white).max() == round(200 * 255 / 4095), "as a later upload is"


@pytest.mark.parametrize(
    ("largest", "white"),
    [(0, None), (0.7, 1.0), (200, 255.0), (300, 511.0), (4095, 4095.0), (4096, 8191.0), (1e6, 1e6)],
)
def test_the_white_level_is_what_the_bits_can_hold(largest, white):
    assert white_of(largest) == white


def test_the_same_white_level_comes_out_of_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("iekd.data.reading.WORTH_CACHING", -1.0)
    for name, value in (("a", 200), ("b", 4000)):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_bytes(deep(value + i))
    first, again = (data.load(f"folder:{tmp_path}", resolution=8) for _ in range(2))
    assert first.white == again.white == 4095.0
    assert np.array_equal(first.train.images, again.train.images)
    squashed = data.load(f"folder:{tmp_path}", resolution=8, fit="squash")
    assert squashed.fit == "squash"


def test_damaged_floating_point_images_do_not_spoil_the_others():
    values = np.full((8, 8), 0.5, np.float32)
    values[0, 0] = np.nan
    assert to_array(encoded(Image.fromarray(values), "TIFF"), 8, 1, white=1.0)[4, 4, 0] == 128


@pytest.mark.parametrize(("largest", "seen"), [(1.0, 51), (0.5, 26), (255.0, 51)])
def test_a_floating_point_image_by_itself_is_not_black(largest, seen):
    values = np.full((8, 8), largest / 5, np.float32)
    values[0, 0] = largest
    assert to_array(encoded(Image.fromarray(values), "TIFF"), 8, 1)[4, 4, 0] == seen


def test_an_infinite_value_does_not_make_all_images_black(tmp_path):
    values = np.full((8, 8), 100, np.float32)
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(2):
            values[0, 0] = np.inf if (name, i) == ("a", 0) else i
            Image.fromarray(values).save(tmp_path / name / f"{i}.tiff")
    loaded = data.load(f"folder:{tmp_path}", resolution=8)
    assert loaded.white == 255.0
    assert (loaded.train.images[:, 4, 4, 0] == 100).all()


def tiff(values: np.ndarray, photometric: int, sample_format: int = 1) -> bytes:
    """A TIFF of grey values, by hand. sample_format: 1 unsigned, 2 signed."""
    tags = [(256, values.shape[1]), (257, values.shape[0]), (258, 8 * values.itemsize), (259, 1), (262, photometric)]
    tags += [(273, 8 + 2 + 12 * 10 + 4), (277, 1), (278, values.shape[0]), (279, values.nbytes), (339, sample_format)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + values.tobytes()


@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_in_which_zero_is_white_is_shown_so(bits):
    values = np.full((8, 8), 2**bits - 1, f"<u{bits // 8}")
    values[:, :4] = 0
    for photometric, left, right in ((1, 0, 255), (0, 255, 0)):
        seen = to_array(tiff(values, photometric), 8, 1)
        assert (seen[0, 0, 0], seen[0, 7, 0]) == (left, right)


def test_negative_values_are_spoken_of(tmp_path):
    """As of a CT scanner, where air is -1000."""
    for k, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        for i in range(2):
            (tmp_path / name / f"{i}.tif").write_bytes(tiff(np.full((8, 8), 300 * k - 200 + i, "<i2"), 1, 2))
    said = "negative values, down to -200, which become black"
    assert any(said in note for note in data.describe(f"folder:{tmp_path}").notes)
    assert any("negative values" in note for note in data.load(f"folder:{tmp_path}", resolution=8).notes)
