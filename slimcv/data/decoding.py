"""From a picture in any ordinary form to pixels of the model's size: the one decoder and the one resize."""

from __future__ import annotations

import errno
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from slimcv.errors import SlimcvError, first_line


class Encoded(Protocol):
    """A picture inside something larger, such as a row of a table."""

    def read(self) -> bytes:
        """The contents of what would be its file. Raises OSError or ValueError where there are none."""


Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Encoded
"""A file, a Pillow image, a uint8 array (height, width) or (height, width, 1, 3 or 4 channels), or encoded
bytes somewhere else."""

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm"),
}
"""The readers Pillow may choose from by a file's first bytes. Some of its others start programs (EPS)."""

SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""File names that are taken for pictures, in lower case."""

DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""What Pillow's format readers raise on damaged or unsupported files: they have no exception of their own."""

LASTING = (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""Refusals of the operating system that will be the same the next time."""

ORIENTATION_TAG = 0x0112
ORIENTATIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What to do to a picture for each value of its EXIF orientation (Exif 2.32, tag 0x0112)."""


class PictureError(SlimcvError):
    """A picture that cannot be decoded; `reason` is what the decoder said."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(
            f"cannot read picture {name}: {reason}", "open it in a viewer; save it again or remove it"
        )
        self.reason = reason

    @property
    def unreachable(self) -> bool:
        """The operating system did not give the bytes: the picture itself may be sound, and come back."""
        cause = self.__cause__
        return isinstance(cause, OSError) and cause.errno is not None and cause.errno not in LASTING


def decode(picture: Picture, height: int, width: int, channels: int) -> np.ndarray:
    """The picture as uint8 pixels of shape (height, width, channels), grey for 1 channel, RGB for 3.

    EXIF orientation is applied, transparent parts are laid on white, 16-bit grey is scaled to 8 bits, the
    first frame stands for an animation, colour profiles are ignored. The size is reached in one antialiased
    bilinear resize that keeps nothing of the aspect ratio. A JPEG at least four times too large is decoded at
    a half, quarter or eighth of its size, never at less than twice the target, so that the antialiased resize
    decides the pixels; so is a JPEG that Pillow has opened and nothing was read of, which stays as it is.

    Raises PictureError for a missing, damaged or unsupported picture and SlimcvError for another number
    of channels.
    """
    if channels not in (1, 3):
        raise SlimcvError(
            f"pictures have 1 or 3 channels, the model asks for {channels}",
            "check --input: it is channels x height x width, for example 3x224x224",
        )
    try:
        with _opened(picture) as image:
            orientation = _orientation(image)
            if image is not picture:
                sideways = orientation in (5, 6, 7, 8)
                image.draft(None, (2 * height, 2 * width) if sideways else (2 * width, 2 * height))
            flat = _flat(image)
            mode = "RGB" if channels == 3 else "L"
            # Conversion to the same mode would copy the whole picture.
            flat = flat if flat.mode == mode else flat.convert(mode)
            if orientation in ORIENTATIONS:
                flat = flat.transpose(ORIENTATIONS[orientation])
            resized = flat.resize((width, height), Image.Resampling.BILINEAR)
    except DAMAGED as error:
        raise PictureError(name_of(picture), _reason(error)) from error
    return np.array(resized, dtype=np.uint8).reshape(height, width, channels)


def name_of(picture: Picture) -> str:
    """What to call a picture in a message: its path where it has one."""
    if isinstance(picture, str | os.PathLike):
        return os.fspath(picture)
    return str(getattr(picture, "filename", "") or "in memory")


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Keep Pillow's remarks on odd metadata off the terminal. Filters are global: use it outside threads."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def _opened(picture: Picture) -> Iterator[Image.Image]:
    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8:
            raise ValueError(f"an array of {picture.dtype}, not of uint8")
        yield Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
        return
    file = _file(picture)
    if isinstance(picture, Image.Image) and file is None:
        yield picture
    else:
        with Image.open(file, formats=tuple(FORMATS)) as image:
            yield image


def _file(picture: str | os.PathLike[str] | Image.Image | Encoded) -> Any:
    """The path or the contents, in memory, of the file that a picture is in.

    Of an open picture None, unless it is a JPEG neither decoded yet nor made ready to be decoded small.
    """
    if isinstance(picture, str | os.PathLike):
        return picture
    if not isinstance(picture, Image.Image):
        return io.BytesIO(picture.read())
    if not isinstance(picture, JpegImageFile) or not picture.tile or picture.decoderconfig:
        return None
    behind = picture.fp
    if behind is None or not behind.seekable():
        return None
    place = behind.tell()
    try:
        behind.seek(0)
        return io.BytesIO(behind.read())
    finally:
        behind.seek(place)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where there is none. Damaged EXIF does not make a picture unreadable.

    `ImageOps.exif_transpose` is not used because it also rewrites the whole EXIF block, and fails where any
    tag of it is damaged.
    """
    try:
        return int(image.getexif().get(ORIENTATION_TAG, 1))
    except DAMAGED:
        return 1


def _flat(image: Image.Image) -> Image.Image:
    """The picture in 8 bits a channel and without transparency, in any mode that converts to RGB and L."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray(np.rint(np.asarray(image) / 257.0).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"32-bit pixels (mode {image.mode}) have no known range")
    if not image.has_transparency_data:
        image.load()
        return image
    canvas = Image.new("RGBA", image.size, "white")
    canvas.alpha_composite(image.convert("RGBA"))
    return canvas


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "not a picture of a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return first_line(error)
