"""Recipes to paste: the steps that a profile foretells to pay, put together so that they go together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from slimcv.recipe import EXPORTS
from slimcv.report.predictions import can_shrink, gains

INT8 = ("quantize_int8", "export_nncf", "export_onnx_int8")
"""Ways to 8-bit arithmetic; of those as fast as each other the first, whose graph every runtime takes."""

CONVOLUTIONS = ("depthwise_separable", "prune_channels", "low_rank")
"""They change the same layers: more than one of them is more than a training can repair."""

RUNTIMES = ("export_openvino", "export_onnx", "compile")
"""What a network can be run in."""

_TRAIN = 30
"""The stage before which steps change the architecture (see slimcv.step.Stage)."""

_Known = Mapping[str, Mapping[str, Any]]


def for_speed(profile: Mapping[str, Any]) -> str:
    """A recipe of the steps that would save time, with what they need; empty where none would."""
    known = _known(profile)
    saving = [name for name in known if gains(known[name], "ms")]
    if "reduce_resolution" in saving and not _can_shrink(profile):
        saving.remove("reduce_resolution")
    found = _surgery(known, saving, "after_ms")
    int8 = min((name for name in INT8 if name in saving), key=_by(known, "after_ms"), default=None)
    if "fuse_conv_bn" in saving or (int8 is not None and "fuse_conv_bn" in known):
        found.append(_line(known, "fuse_conv_bn"))
    if int8 is not None:
        found.append(_line(known, int8))
    exports = _exports(profile, known, saving, int8)
    if not found and not set(saving) & set(RUNTIMES):
        return ""
    return _recipe([*found, *exports])


def for_size(profile: Mapping[str, Any]) -> str:
    """A recipe of the steps that would make files smaller, each keeping what those before it gained."""
    known = _known(profile)
    saving = [name for name in known if gains(known[name], "bytes")]
    found = _surgery(known, [name for name in saving if name != "prune_weights"], "after_bytes")
    kept = []
    if "prune_weights" in saving:
        found.append(_line(known, "prune_weights"))
        kept.append("sparsity")
    if "fuse_conv_bn" in known:
        found.append(_line(known, "fuse_conv_bn"))
    if "cluster_weights" in saving:
        found.append(_line(known, "cluster_weights"))
        kept.append("clusters")
    if "quantize_weights" in saving:
        found.append(_line(known, "quantize_weights", keeping=kept))
    if not saving or not found:
        return ""
    faster = [name for name in known if gains(known[name], "ms")]
    return _recipe([*found, *_exports(profile, known, faster, None)], objective="size")


def each(profile: Mapping[str, Any]) -> str:
    """An entry for every step that is foretold, with the training that it needs, in their order."""
    return "\n".join(f"  {_entry(one)}" for one in _known(profile).values())


def _entry(one: Mapping[str, Any]) -> str:
    line = str(one["recipe"])
    if one["stage"] >= _TRAIN:
        return line
    entry = line.removeprefix("- ")
    return f"- {{{entry if ':' in entry else f'{entry}: {{}}'}, recover: {{}}}}"


def _known(profile: Mapping[str, Any]) -> _Known:
    return {one["step"]: one for one in profile.get("predictions") or () if one["problem"] is None}


def _can_shrink(profile: Mapping[str, Any]) -> bool:
    """Whether the pictures have resolution to give away; nothing speaks against it where it is not told."""
    told = str((profile.get("model") or {}).get("input")).split("x")
    shape = [int(extent) for extent in told if extent.isdecimal()]
    return len(shape) != 3 or can_shrink(shape)


def _by(known: _Known, key: str) -> Any:
    return lambda name: known[name][key]


def _surgery(known: _Known, saving: Iterable[str], key: str) -> list[str]:
    """The steps before a training in a recipe's order, of alternatives the best, and the training."""
    wanted = [name for name in saving if known[name]["stage"] < _TRAIN]
    best = min((name for name in CONVOLUTIONS if name in wanted), key=_by(known, key), default=None)
    chosen = [name for name in wanted if name not in CONVOLUTIONS or name == best]
    lines = [_line(known, name) for name in sorted(chosen, key=_by(known, "stage"))]
    if lines:
        last = lines[-1] if ":" in lines[-1] else f"{lines[-1]}: {{}}"
        lines[-1] = f"{last}\n    recover: {{}}"
    return lines


def _exports(profile: Mapping[str, Any], known: _Known, saving: Iterable[str], int8: str | None) -> list[str]:
    """What the network is to run in: the fastest runtime, and the one that the 8-bit graph was timed in."""
    fastest = min((name for name in RUNTIMES if name in saving), key=_by(known, "after_ms"), default=None)
    profiled = EXPORTS.get((profile.get("totals") or {}).get("runtime", "eager"))
    of_int8 = EXPORTS.get(known[int8]["runtime"]) if int8 == INT8[0] else None
    return [f"- {name}" for name in dict.fromkeys((fastest or profiled, of_int8)) if name is not None]


def _line(known: _Known, name: str, *, keeping: Iterable[str] = ()) -> str:
    line, kept = str(known[name]["recipe"]), ", ".join(keeping)
    if not kept:
        return line
    return f"{line[:-1]}, preserve: [{kept}]}}" if line.endswith("}") else f"{line}: {{preserve: [{kept}]}}"


def _recipe(lines: Iterable[str], *, objective: str | None = None) -> str:
    head = [f"objective: {objective}"] if objective else []
    return "\n".join([*head, "steps:", *(f"  {line}" for line in lines)])
