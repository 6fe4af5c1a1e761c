"""The schema of report.json, version 1; `Report.model_json_schema()` is its JSON Schema.

Keys are only ever added within a schema version. `null` stands for "not measured".
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class LatencyPart(_Part):
    """Milliseconds of one call; `spread` is half the interquartile range over p50."""

    p50: float = Field(gt=0)
    p90: float = Field(gt=0)
    p99: float | None
    n: int = Field(ge=1)
    spread: float = Field(ge=0)


class PairedPart(_Part):
    """Top-1 against the original's on the same pictures; a difference in points with its 95 % interval.

    `lost` counts the pictures that the original alone gets right, `gained` those that it alone gets wrong;
    `p_value` is that of McNemar's test.
    """

    pictures: int = Field(ge=1)
    lost: int = Field(ge=0)
    gained: int = Field(ge=0)
    difference: float = Field(ge=-100, le=100)
    low: float = Field(ge=-100, le=100)
    high: float = Field(ge=-100, le=100)
    p_value: float = Field(ge=0, le=1)


class MeasurementPart(_Part):
    """The object M: one variant, measured; accuracies in percent, sizes in bytes, shares 0 to 1.

    `synthetic_pictures` is how many pictures made of noise `agreement` was found on, null with real ones.
    """

    parameters: int = Field(ge=0)
    buffers: int = Field(ge=0)
    macs: int = Field(ge=0)
    size_bytes: int | None
    latency_ms: LatencyPart | None
    runtime: str
    precision: str
    threads: int = Field(ge=1)
    batch: int = Field(ge=1)
    throughput_ips: float | None
    peak_rss_bytes: int | None
    top1: float | None = Field(ge=0, le=100)
    top5: float | None = Field(ge=0, le=100)
    agreement: float | None = Field(ge=0, le=100)
    train_seconds_per_epoch: float | None
    int8_mac_share: float | None = Field(ge=0, le=1)
    paired: PairedPart | None = None
    synthetic_pictures: int | None = Field(default=None, ge=1)


class BoundPart(_Part):
    """One bound of the gate: `kept` is null where nothing was measured to judge it by."""

    name: str
    bound: float
    kept: bool | None
    reason: str


class GatePart(_Part):
    """The contract for the output; `max_size` in bytes, `met` is null where it could not be judged.

    `decided` says whether the bounds lie outside the intervals of what they bound, null where that is not
    known; `undecided` names those that do not. `pictures` were asked about, `pictures_needed` would decide
    `max_drop`. With a `confidence` an undecided gate is not met. `bounds` are those that were given, judged
    one by one. `not_as_asked` says why what is served is not for the runtime that was asked for, which misses
    the gate; null where it is.
    """

    max_drop: float | None
    min_speedup: float | None
    max_size: int | None
    met: bool | None
    confidence: float | None = None
    decided: bool | None = None
    undecided: list[str] = Field(default_factory=list)
    not_as_asked: str | None = None
    bounds: list[BoundPart] = Field(default_factory=list)
    pictures: int | None = None
    pictures_needed: int | None = None


class RatiosPart(_Part):
    """Improvement factors, above 1 is better; `top1` and `top5` are differences in percentage points.

    `allocator_alone` is what tuning the allocator gives the unmodified model, `runtime_alone` what the best
    unmodified runtime gives over that, `beyond_runtime` how much faster the optimised model is than that one.
    `…_low` and `…_high` bound the 95 % interval (a bootstrap over rounds of calls).
    """

    latency_p50: float | None
    latency_p90: float | None
    latency_p99: float | None
    throughput: float | None
    parameters: float | None
    macs: float | None
    size_bytes: float | None
    peak_rss_bytes: float | None
    train_seconds_per_epoch: float | None
    top1: float | None
    top5: float | None
    allocator_alone: float | None
    runtime_alone: float | None
    beyond_runtime: float | None
    latency_p50_low: float | None = None
    latency_p50_high: float | None = None
    allocator_alone_low: float | None = None
    allocator_alone_high: float | None = None
    runtime_alone_low: float | None = None
    runtime_alone_high: float | None = None
    beyond_runtime_low: float | None = None
    beyond_runtime_high: float | None = None


class StepPart(_Part):
    """One decision: what became of a recipe entry, why, and the figures after and before it.

    `outcome` is accepted, rejected or skipped for an entry; a session may add words of its own.
    """

    number: int = Field(ge=0)
    name: str
    outcome: str = Field(min_length=1)
    reason: str
    seconds: float = Field(ge=0)
    measurement: MeasurementPart | None
    before: MeasurementPart | None
    details: dict[str, Any]


class ArtifactPart(_Part):
    """A file of the bundle; `path` is relative to it, `max_abs_diff` against the variant it was made from.

    `spread` is that of the latency.
    """

    path: str
    runtime: str
    precision: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    latency_ms: float | None
    max_abs_diff: float | None
    spread: float | None = None


class SizesPart(_Part):
    """Bytes of a file, and of the same file zipped (deflate, level 9)."""

    path: str
    bytes: int = Field(ge=0)
    zipped_bytes: int = Field(ge=0)


class PackingPart(_Part):
    """What packing comes to, in bytes: the file that was given, the ONNX file, and that one packed.

    `original` is null where it was too large to zip: a gigabyte, or 67 MB where the recipe is not for size.
    `packed_bytes` is without a manifest.
    """

    original: SizesPart | None
    onnx: SizesPart
    packed_bytes: int = Field(ge=1)


class Report(_Part):
    """The whole of report.json."""

    schema_version: Literal[1]
    model: dict[str, Any]
    recipe: dict[str, Any]
    environment: dict[str, Any]
    gate: GatePart
    original: MeasurementPart
    optimized: MeasurementPart
    ratios: RatiosPart
    steps: list[StepPart]
    artifacts: list[ArtifactPart]
    original_default_allocator: MeasurementPart | None
    best_unmodified: MeasurementPart | None
    data: dict[str, Any] | None
    command: list[str] | None
    packing: PackingPart | None = None
    not_packed: str | None = None
    seconds: float = Field(ge=0)
