"""Original and result layer by layer in one runtime, as a run keeps it for its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from slimcv.errors import SlimcvError
from slimcv.profile.difference import pairs
from slimcv.profile.inside import Inside, look
from slimcv.profile.layers import Layer
from slimcv.profile.roofline import Limits
from slimcv.step import Variant

_COUNTING = {
    "eager": "eager",
    "eager_channels_last": "eager",
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
}
"""Where the layers are timed for each runtime that serves; compiled code would have to be compiled again."""

_OTHERWISE = "openvino"

_KEPT = ("name", "kind", "ms", "share", "intensity", "gflops", "roofline_share", "bound")
_DIGITS = 5


def before_and_after(
    original: Variant, optimized: Variant, *, serve: str, threads: int, limits: Limits
) -> dict[str, Any]:
    """What each layer of both takes for one picture, some seconds of measuring.

    Both are timed in the runtime `serve`, or in OpenVINO where that does not count, so that what is told
    apart is the networks and not the runtimes. `original` and `optimized` hold what they compute in, a whole
    call and the layers with a time of their own; `pairs` what a layer took and what stands in its place
    takes (see slimcv.profile.difference). `problem` says why there is nothing.
    """
    runtime = _COUNTING.get(serve, _OTHERWISE)
    try:
        found = [
            look(variant, runtime=runtime, threads=threads, limits=limits)
            for variant in (original, optimized)
        ]
    except SlimcvError as error:
        return {"runtime": runtime, "problem": error.message}
    before, after = ([asdict(layer) for layer in one.layers] for one in found)
    return {
        "runtime": runtime,
        "problem": None,
        "limits": asdict(limits),
        "original": _side(found[0]),
        "optimized": _side(found[1]),
        "pairs": [
            {
                "name": pair.name,
                "before_ms": pair.before and _rounded(pair.before.ms),
                "after_ms": pair.after and _rounded(pair.after.ms),
            }
            for pair in pairs(before, after)
            if (pair.before and pair.before.ms) or (pair.after and pair.after.ms)
        ],
    }


def _side(found: Inside) -> dict[str, Any]:
    return {
        "precision": found.precision,
        "call_ms": _rounded(found.call_ms),
        "mapped_share": _rounded(found.mapped_share),
        "layers": _timed(found.layers),
    }


def _timed(layers: Iterable[Layer]) -> list[Mapping[str, Any]]:
    return [{key: _rounded(getattr(layer, key)) for key in _KEPT} for layer in layers if layer.ms > 0]


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
