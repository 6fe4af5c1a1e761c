"""A bundle's file in the layout that a model server reads, or alone.

OpenVINO Model Server: `NAME/1/model.xml` beside a `config.json` (docs.openvino.ai, "Preparing a Model
Repository"). Triton: `NAME/1/model.*` with `NAME/config.pbtxt` (Triton documentation, "Model Configuration";
parameters of its OpenVINO backend in the README of triton-inference-server/openvino_backend).
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from slimcv import bundle, packed, runtimes
from slimcv.bundle import PLACES
from slimcv.errors import SlimcvError, nearest
from slimcv.manifest import Manifest
from slimcv.measure.size import artifact_files
from slimcv.runtimes import PIXELS, openvino
from slimcv.writing import complete, write_text

log = logging.getLogger("slimcv")

MODEL_SERVER, TRITON = "openvino-model-server", "triton"
FILES = {"onnx": "onnxruntime", "openvino": "openvino", "pt2": "eager"}
"""Layouts that are one model alone, and whose file that is."""

SLIM = "slim"
LAYOUTS = (MODEL_SERVER, TRITON, *FILES, SLIM)
LARGEST_BATCH = 32
"""How many requests Triton may put together; the artifacts take any number."""


def export(folder: Path, layout: str, out: Path, *, name: str | None = None) -> list[Path]:
    """Write `layout` into the folder `out`, which must be empty or new; the files that were written.

    Of a layout that is one model alone `out` may be the file itself, known by its suffix (OpenVINO's `.bin`
    goes beside it). `name` is the model's on the server, by default the bundle's folder's. Raises SlimcvError
    for an unknown layout, a bundle without the file it takes, a place that is in use or cannot be written;
    nothing is left there then.
    """
    if layout not in LAYOUTS:
        raise SlimcvError(f"unknown layout '{layout}'", nearest(layout, LAYOUTS))
    manifest = bundle.read(folder)
    called = re.sub(r"[^\w.-]+", "_", name or folder.resolve().name) or "model"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        fault = "is not empty" if out.is_dir() else "exists already"
        raise SlimcvError(f"{out} {fault}", "name a new folder" if out.is_dir() else "name a new file")
    new = not out.exists()
    try:
        return _written(folder, manifest, layout, out, called)
    except OSError as error:
        if new and out.is_dir():
            shutil.rmtree(out, ignore_errors=True)
        raise SlimcvError(
            f"cannot write {error.filename or out}: {error.strerror or error}",
            "free space or name another place",
        ) from error


def _written(folder: Path, manifest: Manifest, layout: str, out: Path, name: str) -> list[Path]:
    if layout in (*FILES, SLIM):
        return _alone(folder, manifest, layout, out)
    writers: dict[str, Callable[[Path, Manifest, Path, str], list[Path]]] = {
        MODEL_SERVER: _model_server,
        TRITON: _triton,
    }
    return writers[layout](folder, manifest, out, name)


def _alone(folder: Path, manifest: Manifest, layout: str, out: Path) -> list[Path]:
    usual = f"model{packed.SUFFIX}" if layout == SLIM else Path(PLACES[FILES[layout]]).name
    file = out if out.suffix == Path(usual).suffix and not out.is_dir() else out / usual
    if layout != SLIM:
        return _copied(folder, manifest, FILES[layout], file)
    file.parent.mkdir(parents=True, exist_ok=True)
    return [Path(packed.pack(folder, out=file).path)]


def _model_server(folder: Path, manifest: Manifest, out: Path, name: str) -> list[Path]:
    runtime = "openvino" if PLACES["openvino"] in manifest.files else "onnxruntime"
    files = _copied(folder, manifest, runtime, out / name / "1" / Path(PLACES[runtime]).name)
    # The server's container mounts the repository at /models.
    model: dict[str, object] = {"name": name, "base_path": f"/models/{name}"}
    noted = _noted(folder, runtime)
    if noted is not None:
        model["plugin_config"] = {"INFERENCE_PRECISION_HINT": noted}
    config = {"model_config_list": [{"config": model}]}
    write_text(out / "config.json", json.dumps(config, indent=2) + "\n")
    return [*files, out / "config.json"]


def _triton(folder: Path, manifest: Manifest, out: Path, name: str) -> list[Path]:
    alone = PLACES["onnxruntime"] not in manifest.files
    runtime = "openvino" if alone or manifest.serve.runtime == "openvino" else "onnxruntime"
    files = _copied(folder, manifest, runtime, out / name / "1" / Path(PLACES[runtime]).name)
    outputs = len(manifest.classes) if manifest.classes else -1
    # The manifest says what the served file is fed, which need not be this one.
    shape, fed = runtimes.fed(folder / PLACES[runtime], runtime)
    kind = "UINT8" if fed == PIXELS else "FP32"
    dims = ", ".join(str(-1 if side is None else side) for side in shape[1:])
    config = (
        f'name: "{name}"\n'
        f'backend: "{runtime}"\n'
        f"max_batch_size: {LARGEST_BATCH}\n"
        f'input [{{ name: "input", data_type: TYPE_{kind}, dims: [ {dims} ] }}]\n'
        f'output [{{ name: "logits", data_type: TYPE_FP32, dims: [ {outputs} ] }}]\n'
        "instance_group [{ kind: KIND_CPU }]\n"
    )
    noted = _noted(folder, runtime)
    if noted == "bf16":
        config += 'parameters: { key: "HINT_BF16" value: { string_value: "YES" } }\n'
    elif noted is not None:
        log.warning(
            "Triton's OpenVINO backend takes no parameter for %s: on a CPU with bfloat16 it computes in that",
            noted,
        )
    write_text(out / name / "config.pbtxt", config)
    return [*files, out / name / "config.pbtxt"]


def _noted(folder: Path, runtime: str) -> str | None:
    """What the file promises to be computed in, which only slimcv reads in it."""
    return openvino.noted_precision(folder / PLACES[runtime]) if runtime == "openvino" else None


def _copied(folder: Path, manifest: Manifest, runtime: str, file: Path) -> list[Path]:
    """The artifact's files at `file` and, with its stem, beside it."""
    place = PLACES[runtime]
    if place not in manifest.files:
        present = ", ".join(sorted(manifest.files)) or "none"
        raise SlimcvError(
            f"{folder} has no {place}", f"it has {present}; run slimcv optimize with its export"
        )
    copies = {path: file.with_suffix(path.suffix) for path in artifact_files(folder / place)}
    taken = next((copy for copy in copies.values() if copy.exists()), None)
    if taken is not None:
        raise SlimcvError(f"{taken} exists already", "name a new file")
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        # What a server looks for comes last.
        for path, copy in reversed(copies.items()):
            with path.open("rb") as source, complete(copy) as target:
                shutil.copyfileobj(source, target)
    except OSError:
        for copy in copies.values():
            copy.unlink(missing_ok=True)
        raise
    return list(copies.values())
