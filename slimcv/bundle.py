"""The deployable folder: exported files, report and a manifest that proves they belong together."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import slimcv
from slimcv.errors import SlimcvError
from slimcv.manifest import AGAIN, MANIFEST, FileEntry, GoldenSamples, Input, Manifest, Serve, parsed, signed
from slimcv.results import Artifact
from slimcv.runtimes.prepared import PLANES, InputFormat
from slimcv.writing import complete, writable

if TYPE_CHECKING:
    from slimcv.serving.golden import Golden
    from slimcv.step import Variant

GOLDEN, CARD, PAGE = "golden.npz", "MODEL_CARD.md", "report.html"
_CHUNK_BYTES = 1 << 20
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)

PLACES = {
    "eager": "model.pt2",
    "eager_channels_last": "model.pt2",
    "inductor": "model.pt2",
    "inductor_unfrozen": "model.pt2",
    "aotinductor": "aotinductor/model.pt2",
    "onnxruntime": "model.onnx",
    "openvino": "openvino/model.xml",
}
"""Where in the bundle the file of each runtime stands."""


def clear(folder: Path) -> None:
    """Remove the files of an earlier bundle, the manifest first. Raises SlimcvError where that is refused."""
    with writable(folder):
        weights = str(PurePosixPath(PLACES["openvino"]).with_suffix(".bin"))
        for name in (MANIFEST, *PLACES.values(), weights, GOLDEN, CARD):
            (folder / name).unlink(missing_ok=True)


def reopen(folder: Path) -> None:
    """Take the manifest away, so that nobody reads a bundle whose files are about to change.

    Raises SlimcvError where that is refused.
    """
    with writable(folder):
        (folder / MANIFEST).unlink(missing_ok=True)


def place(
    folder: Path,
    source: Path,
    runtime: str,
    *,
    precision: str,
    latency_ms: float | None = None,
    max_abs_diff: float | None = None,
    spread: float | None = None,
) -> tuple[Artifact, ...]:
    """Copy an exported file to its place in the bundle; the figures go into the report's `artifacts`.

    An OpenVINO model is two files, so two artifacts come back; the figures stand at the `.xml`.
    An older manifest is removed first: until `write` is through, the folder is not a bundle.
    Raises SlimcvError where the folder cannot be written.
    """
    target = PLACES[runtime]
    pairs = [(source, target)]
    if runtime == "openvino":
        pairs.append((source.with_suffix(".bin"), str(PurePosixPath(target).with_suffix(".bin"))))
    artifacts = []
    reopen(folder)
    with writable(folder):
        for number, (path, name) in enumerate(pairs):
            entry = _copy(path, folder / name)
            artifacts.append(
                Artifact(
                    path=name,
                    runtime=runtime,
                    precision=precision,
                    bytes=entry.bytes,
                    sha256=entry.sha256,
                    latency_ms=latency_ms if number == 0 else None,
                    max_abs_diff=max_abs_diff if number == 0 else None,
                    spread=spread if number == 0 else None,
                )
            )
    return tuple(artifacts)


def write(
    folder: Path,
    report: Mapping[str, Any],
    variant: Variant,
    *,
    serve: str,
    seed: int = 0,
    golden: Golden | None = None,
    moved_by_rounding: float = 0.0,
    license: str | None = None,
    beside: Sequence[str] = (),
) -> Manifest:
    """Write report, model card and golden samples and, last, slimcv.json beside the files `place` put there.

    `report` comes from `slimcv.report.build` with the artifacts `place` returned; `serve` is the runtime to
    deploy, `golden` what its file says to a few pictures, `license` the original's; `beside` names further
    files of the folder, which are listed where they are there. `moved_by_rounding` widens what golden samples
    may differ by on another CPU (see `slimcv.serving.golden.tolerance`). An older manifest is taken away
    first, and every file is written under a temporary name and renamed: a reader sees a whole bundle or none.
    Raises SlimcvError where the folder cannot be written or no artifact is for `serve`.
    """
    from slimcv.report import render
    from slimcv.report.card import render_card
    from slimcv.serving.golden import tolerance

    artifacts = report["artifacts"]
    served = next((artifact for artifact in artifacts if artifact["runtime"] == serve), None)
    if served is None:
        raise SlimcvError(
            f"the bundle has no file for {serve}",
            "files: " + (", ".join(artifact["path"] for artifact in artifacts) or "none"),
        )
    files = {
        artifact["path"]: FileEntry(bytes=artifact["bytes"], sha256=artifact["sha256"])
        for artifact in artifacts
    }
    reopen(folder)
    with writable(folder):
        for name, kind in (("report.json", "json"), ("report.md", "markdown")):
            files[name] = _write(folder / name, render(report, kind).encode())
        files[CARD] = _write(folder / CARD, render_card(report, license=license).encode())
        if golden is not None:
            files[GOLDEN] = _write(folder / GOLDEN, golden.packed())
        files |= {name: _entry(folder / name) for name in beside if (folder / name).is_file()}
        spec = variant.input
        manifest = Manifest(
            schema_version=1,
            slimcv=slimcv.__version__,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            serve=Serve(threads=report["optimized"]["threads"], **_served(served)),
            input=Input(
                format=_fed(variant, serve),
                channels=spec.channels,
                height=spec.height,
                width=spec.width,
                mean=spec.mean,
                std=spec.std,
            ),
            classes=variant.classes,
            files=files,
            environment=report["environment"],
            threads=report["optimized"]["threads"],
            seed=seed,
            recipe=report["recipe"],
            golden=None
            if golden is None
            else GoldenSamples(
                path=GOLDEN, tolerance=tolerance(served["precision"], moved=moved_by_rounding)
            ),
            license=license,
        )
        return _signed(folder, manifest)


def renew(folder: Path, name: str, content: bytes) -> None:
    """Put `content` in the place of a file of the folder, and of what a manifest there lists of it.

    A manifest that cannot be read stays as it is. Raises OSError where the folder cannot be written.
    """
    manifest = None
    with suppress(SlimcvError):
        manifest = read(folder, verify=False)
    listed = None if manifest is None else manifest.files.get(name)
    new = FileEntry(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    if manifest is None or listed is None or listed == new:
        _write(folder / name, content)
        return
    _write(folder / name, content)
    _signed(folder, manifest.model_copy(update={"files": {**manifest.files, name: new}}))


def keep_only(
    folder: Path, artifacts: Sequence[Artifact], runtimes: Collection[str], *, serve: str
) -> list[Artifact]:
    """Remove the files that neither these runtimes nor the served one read; the artifacts that are left.

    Several runtimes may read one file, and it is an artifact of the one it was timed in. Raises SlimcvError
    where the folder cannot be written.
    """
    places = {PLACES[runtime] for runtime in (*runtimes, serve)}
    kept = [artifact for artifact in artifacts if PLACES[artifact.runtime] in places]
    names = {artifact.path for artifact in kept}
    with writable(folder):
        for artifact in artifacts:
            if artifact.path not in names:
                (folder / artifact.path).unlink(missing_ok=True)
    return kept


def archive(folder: Path) -> Path:
    """The bundle as one file, `<folder>.zip`, with the folder in it; the same bytes for the same bundle.

    Checkpoints and journal stay outside. Raises SlimcvError where it cannot be written.
    """
    names = [*read(folder, verify=False).files, MANIFEST]
    target = folder.with_name(f"{folder.name}.zip")
    with (
        writable(target.parent),
        complete(target) as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in names:
            entry = zipfile.ZipInfo(f"{folder.name}/{name}", date_time=_ZIP_EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            with (folder / name).open("rb") as source, packed.open(entry, "w") as place:
                shutil.copyfileobj(source, place, _CHUNK_BYTES)
    return target


def read(folder: Path, *, verify: bool = True) -> Manifest:
    """The manifest of a bundle, once every file it lists is there with the size and hash it lists.

    Raises SlimcvError naming the first file that is not, the manifest itself included. `verify=False` leaves
    the other files unread.
    """
    path = folder / MANIFEST
    if folder.is_file():
        raise SlimcvError(
            f"{folder}: a file, and a bundle is a folder", "a zipped one is to be unzipped first"
        )
    if not path.is_file():
        raise SlimcvError(f"{folder}: not a finished bundle, {MANIFEST} is missing", AGAIN)
    manifest = parsed(path.read_bytes(), source=str(path))
    if verify:
        for name, entry in manifest.files.items():
            check(folder / name, entry)
    return manifest


def sha256(path: Path) -> str:
    """The SHA-256 of a file as 64 hexadecimal digits, read in pieces."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(path: Path, entry: FileEntry) -> None:
    """Raise SlimcvError unless the file is there with the size and the hash that the manifest lists."""
    if not path.is_file():
        raise SlimcvError(f"{path}: missing, though the manifest lists it", AGAIN)
    if path.stat().st_size != entry.bytes:
        raise SlimcvError(f"{path}: {path.stat().st_size} bytes, the manifest says {entry.bytes}", AGAIN)
    if sha256(path) != entry.sha256:
        raise SlimcvError(f"{path}: changed since the bundle was written (SHA-256 differs)", AGAIN)


def _signed(folder: Path, manifest: Manifest) -> Manifest:
    """Write the manifest, which is what makes the folder a bundle; it comes back as it will be read."""
    content = signed(manifest.model_dump(mode="json"))
    _write(folder / MANIFEST, content)
    return parsed(content, source=MANIFEST)


def _entry(path: Path) -> FileEntry:
    return FileEntry(bytes=path.stat().st_size, sha256=sha256(path))


def _served(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {key: artifact[key] for key in ("path", "runtime", "precision", "latency_ms")}


def _fed(variant: Variant, serve: str) -> InputFormat:
    """Exported files are fed as the variant's details say, PyTorch's normalised planes."""
    exported: InputFormat = variant.details.get("input_format", PLANES)
    return exported if serve in ("onnxruntime", "openvino") else PLANES


def _copy(source: Path, target: Path) -> FileEntry:
    """Copy and hash in one reading."""

    def pieces() -> Iterator[bytes]:
        with source.open("rb") as stream:
            while piece := stream.read(_CHUNK_BYTES):
                yield piece

    return _stream(target, pieces())


def _write(target: Path, content: bytes) -> FileEntry:
    return _stream(target, iter([content]))


def _stream(target: Path, pieces: Iterator[bytes]) -> FileEntry:
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, written = hashlib.sha256(), 0
    with complete(target) as stream:
        for piece in pieces:
            stream.write(piece)
            digest.update(piece)
            written += len(piece)
    return FileEntry(bytes=written, sha256=digest.hexdigest())
