"""What a ladder, a comparison and a profile hold as JSON, as far as reports draw on it.

A file that was written by another version may have less; it is refused once, when it is read. Keys that are
not named here are left alone. None stands for "not measured".
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from slimcv.report.schema import MeasurementPart

__all__ = ["Comparison", "Difference", "Ladder", "Profile", "Training"]


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", strict=True, allow_inf_nan=False)


class _Network(_Shape):
    name: str
    input: str


class _Cost(_Shape):
    kind: str
    parameters: int
    macs: int
    ms: float
    share: float
    activation_bytes: int | None
    weight_bytes: int | None
    intensity: float | None
    gflops: float | None
    roofline_share: float | None
    bound: str | None


class _Layer(_Cost):
    name: str
    output: list[int] | None
    merged_into: str | None


class _Group(_Cost):
    layers: int


class _Totals(_Shape):
    parameters: int
    weight_bytes: int
    macs: int
    peak_activation_bytes: int
    peak_activation_layer: str
    peak_rss_bytes: int | None
    layers_ms: float
    call_ms: float
    repeats: int
    threads: int
    runtime: str
    precision: str
    default_allocator_ms: float | None
    tuned_allocator_ms: float | None


class _Advice(_Shape):
    text: str
    step: str | None
    share: float
    of: str


class _Check(_Shape):
    rule: str
    state: str
    text: str
    fix: str | None


class _Limits(_Shape):
    threads: int
    fp32_gflops: float
    bf16_gflops: float | None
    int8_gflops: float | None
    memory_gbytes: float


class _Prediction(_Shape):
    step: str
    runtime: str
    before_ms: float
    after_ms: float | None
    before_bytes: int
    after_bytes: int | None
    training_before_ms: float | None
    training_after_ms: float | None
    timed_share: float
    note: str
    verdict: str
    problem: str | None
    recipe: str
    stage: int


class Profile(_Shape):
    """What `slimcv profile` prints."""

    model: _Network
    layers: list[_Layer]
    totals: _Totals
    by_kind: list[_Group]
    by_block: list[_Group]
    advice: list[_Advice]
    lint: list[_Check]
    limits: _Limits | None
    predictions: list[_Prediction]


class _Part(_Shape):
    name: str
    ms: float
    share: float
    first_ms: float
    first_share: float


class _Backward(_Shape):
    kind: str
    ms: float
    share: float


class _Tried(_Shape):
    name: str
    ms_each: float
    as_is_ms_each: float
    gain: float


class _Teacher(_Shape):
    how: str
    form: str
    ms_each: float
    once_seconds: float
    live_step_ms: float


class _Step(_Shape):
    batch: int
    steps: int
    pictures: int
    threads: int
    precision: str
    parts: list[_Part]
    step_ms: float
    images_per_second: float
    busy_threads: float
    epoch_seconds: float
    first_epoch_seconds: float
    decode_ms_each: float
    teacher: _Teacher | None
    peak_rss_bytes: int | None
    trained_bytes: int | None
    backward: list[_Backward]
    tried: list[_Tried]
    advice: list[_Advice]
    remarks: list[str]


class _Place(_Shape):
    ms: float
    macs: int
    parameters: int
    kinds: list[str]


class _Pair(_Shape):
    name: str
    before: _Place | None
    after: _Place | None


class _Served(_Shape):
    path: str
    runtime: str
    precision: str


class _Side(_Network):
    file: str | None = None
    serves: _Served | None = None


class Difference(_Shape):
    """What `slimcv profile --diff` prints: two networks, their totals, and their layers in pairs."""

    models: list[_Side] = Field(min_length=2, max_length=2)
    totals: list[_Totals] = Field(min_length=2, max_length=2)
    layers: list[_Pair]


class Training(_Shape):
    """What `slimcv profile --training` prints."""

    model: _Network
    training: _Step


class _Ratio(_Shape):
    value: float
    low: float
    high: float


class _Paired(_Shape):
    pictures: int
    difference: float
    low: float
    high: float
    p_value: float


class _Row(_Shape):
    name: str
    runtime: str
    precision: str | None
    threads: int
    batch: int
    streams: int
    samples: int
    p50_ms: float | None
    p90_ms: float | None
    p99_ms: float | None
    spread: float | None
    ratio: _Ratio | None
    throughput_ips: float | None
    load_seconds: float | None
    first_call_ms: float | None
    model_bytes: int | None
    size_bytes: int | None
    top1: float | None
    paired: _Paired | None = None
    problem: str | None

    @model_validator(mode="after")
    def _measured(self) -> Self:
        if self.problem is None and self.throughput_ips is None:
            raise ValueError("a row without a problem has images a second")
        return self


class Comparison(_Shape):
    """What `slimcv bench` prints."""

    mode: str
    environment: dict[str, Any] | None = None
    rows: list[_Row]


class _Trained(_Shape):
    images_per_second: float | None
    peak_bytes: float | None
    teacher_seconds: float
    read_steps: int | None
    epochs: int


class _Rung(_Shape):
    name: str
    title: str
    outcome: str
    notes: list[str]
    slower: list[str]
    measurement: MeasurementPart | None
    training: _Trained
    ratios: dict[str, float | None]
    recipe: str | None


class _Named(_Shape):
    name: str


class Ladder(_Shape):
    """What `slimcv ladder` writes."""

    model: _Named
    data: dict[str, Any]
    epochs: int
    seed: int
    threads: int | None
    train_threads: int
    environment: dict[str, Any]
    command: list[str]
    seconds: float
    rows: list[_Rung]
