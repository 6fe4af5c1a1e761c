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


class MeasurementPart(_Part):
    """The object M: one variant, measured; accuracies in percent, sizes in bytes, shares 0 to 1."""

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


class GatePart(_Part):
    """The contract for the output; `max_size` in bytes, `met` is null where it could not be judged."""

    max_drop: float | None
    min_speedup: float | None
    max_size: int | None
    met: bool | None


class RatiosPart(_Part):
    """Improvement factors, above 1 is better; `top1` and `top5` are differences in percentage points.

    `allocator_alone` is what tuning the allocator gives the unmodified model, `runtime_alone` what the best
    unmodified runtime gives over that, `beyond_runtime` how much faster the optimised model is than that one.
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
    """A file of the bundle; `path` is relative to it, `max_abs_diff` against the variant it was made from."""

    path: str
    runtime: str
    precision: str
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    latency_ms: float | None
    max_abs_diff: float | None


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
    seconds: float = Field(ge=0)
