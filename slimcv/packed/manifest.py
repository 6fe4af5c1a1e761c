"""What a packed file says of its model: the bundle's manifest, without what belongs to the folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

import slimcv
from slimcv import bundle
from slimcv.bundle import PLACES
from slimcv.errors import SlimcvError
from slimcv.manifest import FileEntry, Manifest
from slimcv.packed.damage import Damaged
from slimcv.runtimes import openvino

RUNTIMES = ("onnxruntime", "openvino")
"""What can run a packed model."""


class PackedManifest(Manifest):
    """The manifest of a bundle of one ONNX file.

    `inference_precision` is what OpenVINO is told to compute in, where the bundle's own file tells it.
    """

    inference_precision: str | None = Field(default=None, pattern="^[a-z0-9]{1,16}$")


def of_bundle(folder: Path, *, with_samples: bool = True) -> PackedManifest:
    """What stays true when the bundle's ONNX file and perhaps its golden samples are all there is.

    Raises SlimcvError.
    """
    manifest = bundle.read(folder)
    place = PLACES["onnxruntime"]
    if place not in manifest.files:
        raise SlimcvError(
            f"{folder} has no {place}, which is what is packed",
            "run slimcv optimize again with a recipe that exports it, and with onnx where --keep is given",
        )
    given = manifest.model_dump()
    serve = {"path": place, "runtime": "onnxruntime", "latency_ms": None}
    if manifest.serve.runtime in RUNTIMES:
        serve["runtime"] = manifest.serve.runtime
    # The environment and the hashes are those of other files; the recipe's text is long.
    given |= {
        "serve": given["serve"] | serve,
        "files": {},
        "sha256": None,
        "environment": {},
        "golden": given["golden"] if with_samples else None,
        "recipe": {"name": manifest.recipe.get("name")},
        "inference_precision": _inference_precision(folder, manifest),
    }
    return PackedManifest.model_validate(given)


def written(manifest: PackedManifest | None) -> bytes:
    """As JSON without what has its default; nothing for a model that came without a manifest."""
    return b"" if manifest is None else manifest.model_dump_json(exclude_defaults=True).encode()


def read(content: bytes, *, onnx_bytes: int, sha256: bytes) -> PackedManifest | None:
    """The manifest of a packed file whose ONNX file has this size and hash. Raises Damaged."""
    if not content:
        return None
    try:
        manifest = PackedManifest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the manifest"
        if first["type"] == "extra_forbidden":
            unknown = f"slimcv {slimcv.__version__} does not know: a newer one may have written it"
            raise Damaged(f"its manifest says '{where}', which {unknown}") from error
        raise Damaged(f"{where}: {first['msg']}") from error
    if manifest.serve.runtime not in RUNTIMES or manifest.serve.path != PLACES["onnxruntime"]:
        raise Damaged("its manifest names another file or runtime than it can have")
    entry: dict[str, Any] = {"bytes": onnx_bytes, "sha256": sha256.hex()}
    return manifest.model_copy(update={"files": {manifest.serve.path: FileEntry(**entry)}})


def _inference_precision(folder: Path, manifest: Manifest) -> str | None:
    if manifest.serve.runtime != "openvino" or PLACES["openvino"] not in manifest.files:
        return None
    return openvino.noted_precision(folder / PLACES["openvino"])
