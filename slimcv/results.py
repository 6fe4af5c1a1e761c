"""What is written to disk about a run: measurements, the verdict on each step, the files that came out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from slimcv import paired

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Latency:
    """Milliseconds a call takes.

    `p99` is None below 100 samples; `spread` is half the interquartile range over p50.
    """

    p50: float
    p90: float
    p99: float | None
    n: int
    spread: float


@dataclass(frozen=True)
class Paired:
    """Top-1 against the original's on the same labelled pictures (see slimcv.paired).

    `lost` counts the pictures that the original gets right and the variant wrong, `gained` those the other
    way round. `difference` is in percentage points, below 0 for a loss, `low` and `high` bound its 95 %
    interval; `p_value` is that of McNemar's test.
    """

    pictures: int
    lost: int
    gained: int
    difference: float
    low: float
    high: float
    p_value: float

    @classmethod
    def counted(cls, lost: int, gained: int, pictures: int) -> Paired:
        """With everything that follows from the counts."""
        low, high = paired.interval(lost, gained, pictures)
        return cls(
            pictures=pictures,
            lost=lost,
            gained=gained,
            difference=100.0 * (gained - lost) / pictures,
            low=100.0 * low,
            high=100.0 * high,
            p_value=paired.p_value(lost, gained),
        )


@dataclass(frozen=True)
class Measurement:
    """One variant, measured. None means "not measured", never zero.

    Accuracies and agreement are percentages, sizes bytes, `macs` multiply-accumulates for one input,
    `throughput_ips` images a second, `int8_mac_share` the fraction (0 to 1) of the MACs done on 8-bit
    integers. `paired` sets top-1 against the original's, picture by picture. Where there were no pictures,
    `synthetic_pictures` is the number of those made of noise that `agreement` was found on.
    """

    parameters: int
    buffers: int
    macs: int
    size_bytes: int | None = None
    latency_ms: Latency | None = None
    runtime: str = "eager"
    precision: str = "fp32"
    threads: int = 1
    batch: int = 1
    throughput_ips: float | None = None
    peak_rss_bytes: int | None = None
    top1: float | None = None
    top5: float | None = None
    agreement: float | None = None
    train_seconds_per_epoch: float | None = None
    int8_mac_share: float | None = None
    paired: Paired | None = None
    synthetic_pictures: int | None = None

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Measurement:
        """Read back what `as_json` wrote; unknown keys of a newer version are dropped."""
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        if kept.get("latency_ms") is not None:
            kept["latency_ms"] = Latency(**kept["latency_ms"])
        if kept.get("paired") is not None:
            kept["paired"] = Paired(**kept["paired"])
        return cls(**kept)

    def as_json(self) -> dict[str, Any]:
        """The `M` object of report.json."""
        return asdict(self)


@dataclass(frozen=True)
class Artifact:
    """An exported file, what runs it and how far its outputs are from the variant it was made from.

    `spread` is that of its latency (see Latency).
    """

    path: str
    runtime: str
    precision: str
    bytes: int
    sha256: str
    latency_ms: float | None = None
    max_abs_diff: float | None = None
    spread: float | None = None


@dataclass(frozen=True)
class Record:
    """One line of the journal: a step, what became of it, and the figures it was judged by.

    `measurement` is the candidate's (on the tuning split), `before` that of the variant it was made from,
    both from one interleaved measurement. `checkpoint` is relative to the run directory.
    """

    number: int
    entry: int
    step: str
    outcome: str
    reason: str
    seconds: float
    measurement: Measurement | None = None
    before: Measurement | None = None
    checkpoint: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Record:
        """Read back one journal line."""
        known = {f.name for f in fields(cls)}
        kept = {key: value for key, value in values.items() if key in known}
        for name in ("measurement", "before"):
            if kept.get(name) is not None:
                kept[name] = Measurement.from_json(kept[name])
        return cls(**kept)

    def as_json(self) -> dict[str, Any]:
        """The journal line's object."""
        return asdict(self)
