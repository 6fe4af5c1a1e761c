"""Every ordinary form of picture becomes the same pixels; what is damaged is said to be."""

import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from slimcv.data.decoding import ORIENTATION_TAG, ORIENTATIONS, PictureError, decode, quiet_pillow
from slimcv.errors import SlimcvError

RED_GREEN = [(250, 10, 10), (10, 250, 10)]


def halves(width=64, height=32):
    """Red on the left, green on the right."""
    pixels = np.empty((height, width, 3), dtype=np.uint8)
    pixels[:, : width // 2], pixels[:, width // 2 :] = RED_GREEN
    return Image.fromarray(pixels)


def corners(pixels):
    return pixels[2, 2].astype(int), pixels[-3, -3].astype(int)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"quality": 95, "subsampling": 0}),
        ("a.jpg", {"quality": 95, "subsampling": 0, "progressive": True}),
        ("a.png", {}),
        ("a.webp", {"lossless": True}),
        ("a.bmp", {}),
        ("a.gif", {}),
        ("a.tif", {}),
        ("a.ppm", {}),
    ],
)
def test_a_picture_of_every_format_has_its_colours(tmp_path, name, options):
    halves().save(tmp_path / name, **options)
    pixels = decode(tmp_path / name, 16, 16, 3)
    assert pixels.shape == (16, 16, 3)
    assert pixels.dtype == np.uint8
    for found, expected in zip(corners(pixels), RED_GREEN, strict=True):
        assert np.abs(found - expected).max() < 12


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "CMYK", "YCbCr", "HSV", "PA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_colour_mode_gives_the_channels_asked_for(mode, channels):
    pixels = decode(
        halves().convert("P").convert(mode) if mode == "PA" else halves().convert(mode), 8, 12, channels
    )
    assert pixels.shape == (8, 12, channels)
    assert pixels.std() > 0


def test_a_cmyk_jpeg_is_read_in_its_colours(tmp_path):
    halves().convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    for found, expected in zip(corners(decode(tmp_path / "a.jpg", 16, 16, 3)), RED_GREEN, strict=True):
        assert np.abs(found - expected).max() < 20


def test_transparent_parts_become_white():
    clear = Image.new("RGBA", (10, 10), (0, 0, 0, 0))
    half = Image.new("RGBA", (10, 10), (0, 0, 0, 128))
    assert (decode(clear, 5, 5, 3) == 255).all()
    assert (decode(clear, 5, 5, 1) == 255).all()
    assert np.abs(decode(half, 5, 5, 3).astype(int) - 127).max() <= 1


def test_a_transparent_colour_of_a_palette_becomes_white(tmp_path):
    picture = Image.new("P", (8, 8), 0)
    picture.putpalette([0, 0, 0, 200, 0, 0])
    picture.save(tmp_path / "a.png", transparency=0)
    assert (decode(tmp_path / "a.png", 4, 4, 3) == 255).all()


def test_sixteen_bit_grey_keeps_its_range(tmp_path):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None, :].repeat(4, axis=0)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    pixels = decode(tmp_path / "a.png", 4, 256, 1)
    assert np.abs(pixels[0, :, 0].astype(int) - np.arange(256)).max() <= 1


@pytest.mark.parametrize("orientation", sorted(ORIENTATIONS))
def test_a_picture_is_turned_as_its_camera_says(tmp_path, orientation):
    """What was stored turned back by the inverse of the orientation must come out upright."""
    transpose = Image.Transpose
    inverse = {transpose.ROTATE_90: transpose.ROTATE_270, transpose.ROTATE_270: transpose.ROTATE_90}
    stored = halves().transpose(inverse.get(ORIENTATIONS[orientation], ORIENTATIONS[orientation]))
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = orientation
    stored.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode(tmp_path / "a.png", 32, 64, 3), np.asarray(halves()))


def test_a_turned_jpeg_far_too_large_is_still_resized_from_twice_the_size(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION_TAG] = 6
    halves(640, 320).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    pixels = decode(tmp_path / "a.jpg", 20, 40, 3)
    for found, expected in zip(corners(pixels), RED_GREEN, strict=True):
        assert np.abs(found - expected).max() < 12


def test_reduced_decoding_hardly_changes_the_pixels(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    noise.resize((640, 480), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95)
    with Image.open(tmp_path / "a.jpg") as whole:
        whole.load()
        full = decode(whole, 48, 64, 3).astype(int)
    assert np.abs(decode(tmp_path / "a.jpg", 48, 64, 3) - full).mean() < 1.0


def test_a_picture_that_is_open_gives_the_pixels_of_its_file_and_stays_as_it_is(tmp_path):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (400, 600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "large.jpg", quality=90)
    wanted = decode(tmp_path / "large.jpg", 50, 60, 3)
    contents = io.BytesIO((tmp_path / "large.jpg").read_bytes())
    for file in (tmp_path / "large.jpg", contents):
        with Image.open(file) as opened:
            for _ in range(2):
                assert np.array_equal(decode(opened, 50, 60, 3), wanted)
            assert opened.size == (600, 400)
            whole = np.asarray(opened)
            assert whole.shape == (400, 600, 3)
            # Once it is decoded there is nothing but its pixels to go by.
            assert np.array_equal(decode(opened, 50, 60, 3), decode(whole, 50, 60, 3))
    assert not np.array_equal(decode(whole, 50, 60, 3), wanted)


def test_the_resize_is_antialiased():
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(decode(stripes, 8, 8, 1)[1:-1, 1:-1].astype(int) - 127).max() <= 12


def test_an_array_of_the_right_size_is_left_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    assert np.array_equal(decode(pixels, 9, 7, 3), pixels)
    assert np.array_equal(decode(pixels[:, :, :1], 9, 7, 1), pixels[:, :, :1])


def test_damaged_exif_neither_spoils_a_picture_nor_is_complained_of(tmp_path):
    halves().save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x12\x01" * 20)
    with warnings.catch_warnings(record=True) as heard, quiet_pillow():
        assert decode(tmp_path / "a.jpg", 8, 8, 3).shape == (8, 8, 3)
    assert not heard


@pytest.mark.parametrize("keep", [0, 3, 40, 0.5, 0.9])
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_a_cut_off_picture_is_unreadable(tmp_path, keep, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(PictureError) as caught:
        decode(path, 8, 8, 3)
    assert str(path) in caught.value.message
    assert caught.value.reason


def test_a_missing_file_and_one_that_is_no_picture_say_which_they_are(tmp_path):
    (tmp_path / "a.jpg").write_text("not a picture")
    with pytest.raises(PictureError, match="no such file"):
        decode(tmp_path / "b.jpg", 8, 8, 3)
    with pytest.raises(PictureError, match="not a picture of a known format"):
        decode(tmp_path / "a.jpg", 8, 8, 3)


def test_a_program_in_disguise_is_not_interpreted(tmp_path):
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n")
    with pytest.raises(PictureError, match="not a picture of a known format"):
        decode(tmp_path / "a.png", 8, 8, 3)


def test_floating_point_pictures_are_refused_for_their_unknown_range():
    with pytest.raises(PictureError, match="no known range"):
        decode(Image.new("F", (4, 4)), 4, 4, 1)
    with pytest.raises(PictureError, match="float32"):
        decode(np.zeros((4, 4), dtype=np.float32), 4, 4, 1)


def test_a_model_of_four_channels_gets_no_pictures():
    with pytest.raises(SlimcvError, match="1 or 3 channels"):
        decode(halves(), 8, 8, 4)


def test_decoding_and_normalising_do_not_need_torch():
    code = (
        "import sys, slimcv.data, slimcv.data.decoding, slimcv.data.normalisation, slimcv.data.synthetic;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
