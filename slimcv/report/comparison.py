"""What the before/after table says, as rows of words; the terminal and Markdown draw the same rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from slimcv.report import figures, packing
from slimcv.report.document import within_spread
from slimcv.report.figures import NOT_MEASURED
from slimcv.results import Latency, Measurement, Paired

WITHIN = "within the spread"
"""What stands for a ratio of latencies that may as well be 1."""


@dataclass(frozen=True)
class Row:
    """One line of a table: a label and what stands in the columns original, optimised, change."""

    label: str
    original: str
    optimized: str
    change: str


def rows(report: Mapping[str, Any]) -> list[Row]:
    """The before/after table of a report."""
    before = Measurement.from_json(report["original"])
    after = Measurement.from_json(report["optimized"])
    return [
        Row("runs in", _runs_in(before), f"{_runs_in(after)}{_quantizer(report)}", ""),
        _amount("parameters", before.parameters, after.parameters, form=figures.count),
        _amount("MACs", before.macs, after.macs, form=figures.count),
        _amount("file size", before.size_bytes, after.size_bytes, form=figures.size),
        *(Row(*line) for line in packing.lines(report)),
        *_latencies(report, before, after),
        _throughput(report, before, after),
        _amount(
            "peak memory",
            figures.seen(before.peak_rss_bytes),
            figures.seen(after.peak_rss_bytes),
            form=figures.size,
        ),
        _accuracy("top-1", before.top1, after.top1, after.paired),
        _accuracy("top-5", before.top5, after.top5),
        Row(
            "same answer as the original",
            NOT_MEASURED,
            figures.percent(after.agreement),
            figures.asked(after.synthetic_pictures),
        ),
        _training(report, before, after),
        Row(
            "INT8 share of the MACs",
            figures.share(before.int8_mac_share),
            figures.share(after.int8_mac_share),
            "",
        ),
    ]


def unmodified(report: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What the untouched network reaches: (how it runs, latency p50, what that is worth)."""
    ratios = report["ratios"]
    lines = [
        (
            f"original, {figures.allocator(report['environment'])} (the base of all ratios)",
            _latency_words(report["original"]),
            "",
        )
    ]
    default = report.get("original_default_allocator")
    between = interval(report, "allocator_alone")
    worth = _against_base(
        report, default, _inverse(ratios.get("allocator_alone")), between and (1 / between[1], 1 / between[0])
    )
    lines.append(("original, default allocator", _latency_words(default), worth))
    best = report.get("best_unmodified")
    name = f" ({best['runtime']} {best['precision']})" if best else ""
    worth = _against_base(report, best, ratios.get("runtime_alone"), interval(report, "runtime_alone"))
    lines.append((f"best unmodified runtime{name}", _latency_words(best), worth))
    return lines


@dataclass(frozen=True)
class Way:
    """One way of running the optimised network, and what became of it; None where it was not timed.

    Runs of an older version did not keep the spread.
    """

    name: str
    precision: str
    p50_ms: float | None
    outcome: str
    spread: float | None = None

    @property
    def latency(self) -> str:
        """The median in words."""
        return figures.milliseconds(self.p50_ms, spread=self.spread)


def bake_off(report: Mapping[str, Any]) -> list[Way]:
    """Every way of running the optimised network.

    Empty where the final measurement was a quick one or the runtime was given.
    """
    steps = report["steps"]
    rows = steps[-1]["details"].get("bake_off") or [] if steps else []
    return [
        Way(
            row["name"],
            row["precision"] or figures.NOT_MEASURED,
            row["p50_ms"],
            row["outcome"],
            row.get("spread"),
        )
        for row in rows
    ]


def beyond_runtime(report: Mapping[str, Any]) -> str | None:
    """The sentence that sets the optimised model against the best unmodified runtime; None unmeasured."""
    if report["ratios"].get("beyond_runtime") is None:
        return None
    best = report["best_unmodified"]
    against = f"the unmodified network in {best['runtime']} {best['precision']}"
    told = speed(report, "beyond_runtime", best)
    if told == WITHIN:
        return f"The optimised model is as fast as {against}, within the measured spread."
    return f"The optimised model is {told} than {against}."


def interval(report: Mapping[str, Any], ratio: str) -> tuple[float, float] | None:
    """The bounds of a ratio of latencies; None where they are not known."""
    low, high = (report["ratios"].get(f"{ratio}_{bound}") for bound in ("low", "high"))
    return None if low is None or high is None else (low, high)


def speed(report: Mapping[str, Any], ratio: str, base: Mapping[str, Any]) -> str:
    """How much faster the optimised network is than an M object by the named ratio, in words."""
    before, after = Measurement.from_json(dict(base)), Measurement.from_json(report["optimized"])
    return _speed(report["ratios"].get(ratio), before.latency_ms, after.latency_ms, interval(report, ratio))


def speed_of(report: Mapping[str, Any]) -> str:
    """How much faster the optimised network is, with its interval where that is known."""
    return next(row for row in rows(report) if row.label == "latency p50").change


def changes_of(step: Mapping[str, Any]) -> str:
    """A step's gain in speed over the variant it was made from."""
    before, after = step.get("before"), step.get("measurement")
    if not before or not after or not before["latency_ms"] or not after["latency_ms"]:
        return NOT_MEASURED
    old, new = before["latency_ms"], after["latency_ms"]
    return f"{figures.significant(old['p50'] / new['p50'], figures.digits(old['spread'], new['spread']))}×"


def latency_of(measurement: Mapping[str, Any] | None) -> str:
    """The median latency of an M object, in words."""
    return _latency_words(measurement)


def _quantizer(report: Mapping[str, Any]) -> str:
    """Who quantised the served file, where it was not slimcv's own step."""
    names = {"nncf": " by NNCF", "qdq": " by ONNX Runtime"}
    steps = report["steps"]
    return names.get(steps[-1]["details"].get("quantizer"), "") if steps else ""


def _runs_in(measurement: Measurement) -> str:
    return f"{measurement.runtime} {measurement.precision}"


def _amount(
    label: str, before: float | None, after: float | None, *, form: Callable[[float | None], str]
) -> Row:
    return Row(label, form(before), form(after), figures.reduction(before, after))


def _latencies(report: Mapping[str, Any], before: Measurement, after: Measurement) -> list[Row]:
    lines = []
    for name in ("p50", "p90", "p99"):
        change = _speed(
            report["ratios"].get(f"latency_{name}"),
            before.latency_ms,
            after.latency_ms,
            interval(report, f"latency_{name}"),
        )
        lines.append(
            Row(
                f"latency {name}",
                _milliseconds(before.latency_ms, name),
                _milliseconds(after.latency_ms, name),
                change,
            )
        )
    return lines


def _speed(
    ratio: float | None,
    before: Latency | None,
    after: Latency | None,
    between: tuple[float, float] | None = None,
) -> str:
    """A ratio of latencies in words; without the bounds of its interval the spreads of both say how sure."""
    if ratio is None or before is None or after is None:
        return NOT_MEASURED
    if between is not None:
        low, high = between
        return WITHIN if low <= 1 <= high else figures.factor(ratio, low, high, "faster", "slower")
    if within_spread(before, after):
        return WITHIN
    return figures.times(ratio, "faster", "slower", digits=figures.digits(before.spread, after.spread))


def _against_base(
    report: Mapping[str, Any],
    measurement: Mapping[str, Any] | None,
    ratio: float | None,
    between: tuple[float, float] | None,
) -> str:
    if measurement is None:
        return NOT_MEASURED
    base, other = Measurement.from_json(report["original"]), Measurement.from_json(dict(measurement))
    return _speed(ratio, base.latency_ms, other.latency_ms, between)


def _milliseconds(latency: Latency | None, name: str) -> str:
    if latency is None:
        return NOT_MEASURED
    return figures.milliseconds(getattr(latency, name), spread=latency.spread)


def _latency_words(measurement: Mapping[str, Any] | None) -> str:
    if not measurement or not measurement["latency_ms"]:
        return NOT_MEASURED
    return _milliseconds(Latency(**measurement["latency_ms"]), "p50")


def _throughput(report: Mapping[str, Any], before: Measurement, after: Measurement) -> Row:
    """Its spread is taken for that of the latency, whose calls were made beside it."""

    def rate(measured: Measurement) -> str:
        value, spread = measured.throughput_ips, _spread(measured)
        return NOT_MEASURED if value is None else f"{figures.rounded(value, value * spread)} images/s"

    digits = figures.digits(_spread(before), _spread(after))
    change = figures.times(report["ratios"].get("throughput"), "more", "less", digits=digits)
    return Row("throughput", rate(before), rate(after), change)


def _spread(measured: Measurement) -> float:
    return measured.latency_ms.spread if measured.latency_ms else 0.0


def _accuracy(label: str, before: float | None, after: float | None, paired: Paired | None = None) -> Row:
    change = figures.points(None if before is None or after is None else after - before)
    if paired is not None:
        change += f" ({figures.points_between(paired.low, paired.high)})"
    if before is None and after is None:
        return Row(label, "not measured", "not measured", NOT_MEASURED)
    return Row(label, figures.percent(before), figures.percent(after), change)


def _training(report: Mapping[str, Any], before: Measurement, after: Measurement) -> Row:
    change = figures.times(report["ratios"].get("train_seconds_per_epoch"), "faster", "slower")
    return Row(
        "training, an epoch",
        figures.duration(before.train_seconds_per_epoch),
        figures.duration(after.train_seconds_per_epoch),
        change,
    )


def _inverse(ratio: float | None) -> float | None:
    return 1 / ratio if ratio else None
