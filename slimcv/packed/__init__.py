"""One file for a model, `model.slim`: as few bytes as its weights allow, and the same ONNX file out of it.

It knows nothing of steps: zeros, few different values and narrow integers are found in the weights
themselves. The format is in docs/format.md.
"""

from slimcv.packed.files import SUFFIX, Packed, Sizes, pack, read, read_manifest, read_samples, unpack
from slimcv.packed.manifest import RUNTIMES, PackedManifest

__all__ = [
    "RUNTIMES",
    "SUFFIX",
    "Packed",
    "PackedManifest",
    "Sizes",
    "pack",
    "read",
    "read_manifest",
    "read_samples",
    "unpack",
]
