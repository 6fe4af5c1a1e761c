"""One file for a model, `model.slim`: as few bytes as its weights allow, and the same ONNX file out of it.

It knows nothing of steps: zeros, few different values and narrow integers are found in the weights
themselves. The format is in docs/format.md.
"""

from slimcv.packed.files import (
    SUFFIX,
    Compared,
    Packed,
    compared,
    pack,
    read,
    read_manifest,
    read_samples,
    unpack,
)
from slimcv.packed.manifest import RUNTIMES, PackedManifest
from slimcv.packed.sizes import Sizes, sizes_of

__all__ = [
    "RUNTIMES",
    "SUFFIX",
    "Compared",
    "Packed",
    "PackedManifest",
    "Sizes",
    "compared",
    "pack",
    "read",
    "read_manifest",
    "read_samples",
    "sizes_of",
    "unpack",
]
