"""One made-up run, from which each test changes what it is about."""

import dataclasses
import json

import pytest

from slimcv import report
from slimcv.results import Artifact, Latency, Measurement, Paired, Record

ORIGINAL = Measurement(
    parameters=52_567_724,
    buffers=1_920,
    macs=2_638_000_000,
    size_bytes=210_377_874,
    latency_ms=Latency(p50=78.13, p90=79.9, p99=84.1, n=100, spread=0.012),
    throughput_ips=13.5,
    peak_rss_bytes=359_000_000,
    top1=95.33,
    top5=100.0,
    train_seconds_per_epoch=245.0,
)
OPTIMIZED = Measurement(
    parameters=125_000,
    buffers=0,
    macs=61_000_000,
    size_bytes=330_000,
    latency_ms=Latency(p50=1.25, p90=1.31, p99=None, n=50, spread=0.02),
    runtime="openvino",
    precision="int8",
    throughput_ips=1400.0,
    peak_rss_bytes=11_000_000,
    top1=96.83,
    top5=100.0,
    agreement=96.1,
    train_seconds_per_epoch=9.2,
    int8_mac_share=0.9996,
)


@pytest.fixture
def original():
    return ORIGINAL


@pytest.fixture
def optimized():
    return OPTIMIZED


@pytest.fixture
def make_report():
    """A function that builds the report, its keyword arguments in place of the made-up ones."""

    def make(**changes):
        values = {
            "model": {"name": "leaves", "source": "model.pt", "input": "3x224x224", "classes": ("a", "b")},
            "recipe": {"name": "cpu_fast", "text": "name: cpu_fast\n"},
            "environment": {"cpu": "a CPU", "isa": ("avx2",), "versions": {"torch": "2.13.0"}},
            "gate": {"max_drop": 1.0, "min_speedup": None, "met": True},
            "original": ORIGINAL,
            "optimized": OPTIMIZED,
            "records": [
                Record(
                    number=1,
                    entry=0,
                    step="global_average_pool",
                    outcome="accepted",
                    reason="1.20× faster",
                    seconds=62.1,
                    measurement=dataclasses.replace(
                        ORIGINAL, latency_ms=Latency(p50=65.0, p90=66.0, p99=None, n=50, spread=0.01)
                    ),
                    before=ORIGINAL,
                ),
                Record(
                    number=2,
                    entry=1,
                    step="depthwise_separable",
                    outcome="rejected",
                    reason="no gain: 64.8 ms against 65.0 ms",
                    seconds=300.0,
                    measurement=dataclasses.replace(ORIGINAL, top1=91.5),
                ),
                Record(
                    number=3,
                    entry=2,
                    step="quantize_int8",
                    outcome="skipped",
                    reason="needs data",
                    seconds=0.002,
                ),
            ],
            "artifacts": [Artifact("openvino/model.xml", "openvino", "int8", 12_345, "0" * 64, 1.25, 3.2e-4)],
            "seconds": 712.3,
            "original_default_allocator": dataclasses.replace(
                ORIGINAL, latency_ms=Latency(p50=106.2, p90=109.0, p99=None, n=50, spread=0.02)
            ),
            "best_unmodified": dataclasses.replace(
                ORIGINAL,
                runtime="openvino",
                latency_ms=Latency(p50=25.0, p90=26.0, p99=None, n=50, spread=0.01),
            ),
            "data": {"source": "leaves/", "val": 600},
        }
        return report.build(**{**values, **changes})

    return make


HOSTILE = "<script>alert(1)</script>"
CLASSES = ("healthy", HOSTILE, "rust", '"><img src=x onerror=alert(2)>')
THUMBNAIL = (
    "data:image/jpeg;base64,/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsK"
    "CwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/wAALCAABAAEBAREA/8QAFAABAAAAAAAAAAAAAAAAAAAACf/EABQQAQAA"
    "AAAAAAAAAAAAAAAAAAD/2gAIAQEAAD8AVN//2Q=="
)


def _history():
    return [
        {
            "number": number,
            "lr": 1e-3 / number,
            "seconds": 3.0,
            "loss": 1 / number,
            "train_top1": 60 + 3.0 * number,
            "tuning_top1": 55 + 3.5 * number,
            "tuning_loss": 1.2 / number,
            "averaged_top1": 54 + 3.6 * number,
        }
        for number in range(1, 9)
    ]


def _faster(measurement, p50, **changes):
    latency = Latency(p50=p50, p90=1.1 * p50, p99=None, n=50, spread=0.02)
    return dataclasses.replace(measurement, latency_ms=latency, **changes)


LIMITS = {
    "threads": 1, "fp32_gflops": 117.0, "bf16_gflops": None, "int8_gflops": 470.0, "memory_gbytes": 20.0,
    "seconds": 5.0,
}  # fmt: skip


RUNG = {
    "name": "plain", "taken": True, "met": False, "reason": f"gate missed: {HOSTILE}", "seconds": 12.0,
    "error": 0.21, "top1": 90.1, "int8_share": 1.0,
}  # fmt: skip
INT8 = {
    "target_isa": "avx2", "reduce_range": True, "ranges": "extremes", "layers_left_in_float": [HOSTILE],
    "rungs": [RUNG, {**RUNG, "name": "mixed", "met": True, "error": 0.04, "int8_share": 0.962}],
}  # fmt: skip
REPEATED = {
    "environment": {"cpu": "a CPU", "versions": {"torch": "2.13.0"}},
    "command": ["slimcv", "profile", HOSTILE],
}
"""What the command line adds to every result of a profile or a comparison."""


def foretold(speedup, *, verdict=""):
    """What a record keeps of a prediction."""
    return {
        "speedup": speedup, "before_bytes": 4 * 10**6, "weight_bytes": 10**6, "timed_share": 0.9,
        "runtime": "openvino", "before_ms": 10.0 * speedup, "after_ms": 10.0, "verdict": verdict,
        "training_before_ms": 30.0, "training_after_ms": 10.0,
    }  # fmt: skip


def layer_times(layers):
    """What a run keeps of the time of each layer: convolutions that halve their time, a new row, one gone."""

    def side(scale):
        kept = [
            {
                "name": f"block{at}.conv", "kind": "3×3 convolution", "ms": scale / (at + 1),
                "share": 1 / layers, "intensity": 5.0 * (at + 1), "gflops": 40.0 / scale,
                "roofline_share": 0.5, "bound": "memory" if at % 2 else "compute",
            }
            for at in range(layers)
        ]  # fmt: skip
        relu = {**kept[0], "name": HOSTILE, "kind": "activation", "intensity": None, "gflops": None}
        return {"precision": "fp32", "call_ms": 3.0 * scale, "mapped_share": 1.0, "layers": [*kept, relu]}

    pairs = [
        {"name": f"block{at}.conv", "before_ms": 2.0 / (at + 1), "after_ms": 1.0 / (at + 1)}
        for at in range(layers)
    ]
    pairs += [{"name": HOSTILE, "before_ms": 0.3, "after_ms": None}]
    pairs += [{"name": "(runtime's own)", "before_ms": None, "after_ms": 0.1}]
    return {
        "runtime": "openvino", "problem": None, "limits": LIMITS, "original": side(2.0),
        "optimized": side(1.0), "pairs": pairs,
    }  # fmt: skip


@pytest.fixture
def make_run(make_report, tmp_path):
    """A function that writes the folder of a run with all that a page shows, hostile names included."""

    def make(name="run", *, layers=3, pictures=40, classes=CLASSES, **changes):
        finetune = {
            "epochs": 8, "seconds_per_epoch": 3.0, "batch": 32, "precision": "fp32", "best": 7,
            "stopped": "all epochs done", "history": _history(), "teacher": "live", "teacher_seconds": 75.0,
            "teacher_form": "OpenVINO", "teacher_share": 0.25, "remarks": [f"a batch of 8 {HOSTILE}"],
        }  # fmt: skip
        shipped = {
            "serve": "openvino",
            "quantizer": None,
            "samples_ms": {
                "original": [78.0 + at % 5 for at in range(100)],
                "openvino": [1.25 + 0.01 * (at % 7) for at in range(50)],
            },
            "intervals": {"latency_p50": {"value": 62.5, "low": 61.0, "high": 64.2}},
            "layers": {
                "original": [
                    {
                        "name": f"block{at}.conv",
                        "macs": 10**9 // (at + 1),
                        "parameters": 10**6,
                        "bytes": 4 * 10**6,
                    }
                    for at in range(layers)
                ],
                "optimized": [
                    {"name": f"block{at}.conv.pointwise", "macs": 10**7, "parameters": 10**4, "bytes": 10**4}
                    for at in range(layers)
                ],
            },
            "layer_times": layer_times(layers),
            "bake_off": [
                {"name": HOSTILE, "precision": "int8", "p50_ms": 1.25, "outcome": "served", "spread": 0.02},
                {"name": "aotinductor", "precision": None, "p50_ms": None, "outcome": "no compiler"},
            ],
        }  # fmt: skip
        tuning = dataclasses.replace(ORIGINAL, top1=97.0)
        optimized = dataclasses.replace(OPTIMIZED, paired=Paired.counted(3, 12, 600))
        pooled = _faster(tuning, 65.0, top1=95.0, size_bytes=60_000_000)
        records = [
            Record(0, -1, "original", "measured", "", 3.0, measurement=tuning),
            Record(
                1, 0, "global_average_pool", "accepted", "1.20×", 62.1, pooled, _faster(tuning, 78.0),
                details={"foretold": foretold(1.5), "gradients": {"before_ms": 60.0, "after_ms": 32.0}},
            ),
            Record(
                2, 1, "separable", "rejected", "no gain", 30.0, _faster(tuning, 64.9, top1=91.5), pooled,
                details={"foretold": foretold(1.0, verdict=f"not worth it for speed: {HOSTILE}")},
            ),
            Record(
                3, 2, "reduce_resolution", "accepted", "3×", 99.0, _faster(tuning, 21.0, top1=94.0), pooled,
                details={"variant": {"finetune": finetune}, "not_foretold": f"{HOSTILE} is not timed"},
            ),
            Record(4, 3, "fuse_conv_bn", "skipped", f"nothing to fuse in {HOSTILE}", 0.1),
            Record(
                5, 4, "quantize_int8", "accepted", "2×", 60.0, _faster(tuning, 9.0, top1=94.1), pooled,
                details={"variant": {"quantize_int8": INT8}},
            ),
            Record(6, -1, "ship", "accepted", "gate met", 20.0, optimized, ORIGINAL, details=shipped),
        ]  # fmt: skip
        values = {
            "model": {"source": f"{HOSTILE}.pt", "input": "3x224x224", "classes": classes},
            "recipe": {"name": "mine", "text": f"# {HOSTILE}\nsteps: []\n"},
            "records": records,
            "optimized": optimized,
            "packing": {
                "original": {"path": HOSTILE, "bytes": 210_377_874, "zipped_bytes": 195_000_000},
                "onnx": {"path": "model.onnx", "bytes": 330_000, "zipped_bytes": 260_000},
                "packed_bytes": 120_000,
            },
            "data": {"source": f"{HOSTILE}/", "val": pictures, "fingerprint": "f", "classes": classes},
            "command": ["slimcv", "optimize", f"{HOSTILE}.pt"],
            "intervals": shipped["intervals"],
        }
        folder = tmp_path / name
        folder.mkdir()
        document = make_report(**{**values, **changes})
        (folder / "report.json").write_text(report.render(document, "json"), "utf-8")
        labels = [at % len(classes) for at in range(pictures)]
        said = {
            "schema_version": 1,
            "classes": list(classes),
            "pictures": [f"val/{HOSTILE}/{at}.jpg" for at in range(pictures)],
            "labels": labels,
            "original": [label if at % 9 else (label + 1) % len(classes) for at, label in enumerate(labels)],
            "optimized": [label if at % 7 else (label + 1) % len(classes) for at, label in enumerate(labels)],
            "examples": [{"picture": at, "thumbnail": THUMBNAIL} for at in (7, 9, 14)],
        }
        (folder / "predictions.json").write_text(json.dumps(said), "utf-8")
        return folder

    return make


def _ladder():
    from slimcv.report.ladder import build

    rows = []
    for number, (name, p50) in enumerate((("original", 20.0), ("pooling", 15.0), ("separable", 4.0))):
        training = {
            "images_per_second": 100.0 / (number + 1), "peak_bytes": 2e8, "teacher_seconds": 0.0,
            "read_steps": None, "epochs": 3,
        }  # fmt: skip
        details = {"title": name, "recipe": "steps: []", "training": training, "notes": [HOSTILE]}
        paired = Paired.counted(2 * number, 1, 200) if number else None
        measurement = _faster(ORIGINAL, p50, top1=95.0 - number, paired=paired)
        details["latency_ratio"] = {"value": 20.0 / p50, "low": 19.0 / p50, "high": 21.0 / p50}
        rows.append(Record(number, -1, name, "measured", "", 1.0, measurement, details=details))
    return build(
        rows,
        model={"name": HOSTILE, "source": HOSTILE},
        data={"source": HOSTILE},
        epochs=3,
        seed=0,
        train_threads=2,
        seconds=321.0,
        environment={"cpu": "a CPU"},
        command=["slimcv", "ladder", HOSTILE],
    )


def _bench():
    from slimcv.bench import Comparison, Row
    from slimcv.measure.latency import Ratio

    first = Row(
        HOSTILE, "eager", "fp32", 1, 1, 1, size_bytes=10_000, p50_ms=10.0, p90_ms=11.0, p99_ms=12.0,
        samples=100, spread=0.01, ratio=Ratio(1.0, 1.0, 1.0), throughput_ips=100.0,
        load_seconds=0.5, first_call_ms=30.0,
        model_bytes=5_000_000, top1=90.0,
    )  # fmt: skip
    second = dataclasses.replace(
        first, name="other.onnx", runtime="onnxruntime", p50_ms=2.0, ratio=Ratio(5.0, 4.8, 5.2),
        throughput_ips=500.0, top1=89.0, paired=Paired.counted(7, 5, 200),
    )  # fmt: skip
    broken = Row("broken.onnx", "onnxruntime", None, 1, 1, 1, problem="cannot be loaded")
    return {**Comparison("latency", (first, second, broken)).as_json(), **REPEATED}


def _profile():
    from slimcv.profile.groups import gather
    from slimcv.profile.layers import Advice, Check, Kind, Layer, Profile, Totals

    timed = ((HOSTILE, "convolution", 3.0), ("block.act", "activation", 1.0), ("head", "linear", 2.0))
    layers = tuple(
        Layer(
            name, name.replace(".", "_"), kind, (8, 10, 10), 1000, 100_000, ms, ms / 6, block=HOSTILE,
            intensity=10.0, gflops=30.0 / ms, roofline_share=0.4, bound="memory",
            activation_bytes=6400, weight_bytes=4000,
        )
        for name, kind, ms in timed
    )  # fmt: skip
    totals = Totals(3000, 0, 300_000, 12_000, 80_000, HOSTILE, 6.0, 6.5, 0.08, 5, 1)
    advice = (Advice("the head holds most of the parameters", "global_average_pool", 0.8, "parameters"),)
    lint = (Check("denormal weights", "fault", "3 % of the weights are denormal", "round them to zero"),)
    model = {"name": HOSTILE, "input": "3x16x16"}
    blocks = (Kind(HOSTILE, 2, 2000, 200_000, 4.0, 0.7), Kind("", 1, 1000, 100_000, 2.0, 0.3))
    found = Profile(model, layers, totals, gather(layers), advice, lint, blocks, LIMITS, _predictions())
    return {**found.as_json(), **REPEATED}


def _predictions():
    first = {
        "step": "depthwise_separable", "runtime": "eager", "before_ms": 6.0, "after_ms": 3.0,
        "before_bytes": 12_000, "after_bytes": 4000, "training_before_ms": 20.0, "training_after_ms": 10.0,
        "timed_share": 1.0, "note": f"its accuracy must be repaired {HOSTILE}", "verdict": "",
        "problem": None, "recipe": "- depthwise_separable", "stage": 10, "enabling": False,
    }  # fmt: skip
    waiting = "INT8 not worth it for speed: 71 % of the time is memory-bound depthwise convolution"
    second = {
        **first, "step": "quantize_int8", "runtime": "openvino", "after_ms": 6.1, "training_before_ms": None,
        "training_after_ms": None, "verdict": waiting, "recipe": "- quantize_int8", "stage": 50,
    }  # fmt: skip
    third = {
        **first,
        "step": "low_rank",
        "after_ms": None,
        "after_bytes": None,
        "problem": "no rank is low enough",
    }
    return (first, second, third)


def _training():
    from slimcv.profile.layers import Advice
    from slimcv.profile.training.findings import BackwardKind, Part, TrainingProfile, Tried

    found = TrainingProfile(
        model={"name": HOSTILE, "input": "3x16x16"}, pictures=1000, batch=32, asked_batch=32, steps=8,
        threads=2, precision="bf16",
        parts=(Part("forward", 10.0, 0.4, 10.0, 0.3), Part("backward", 15.0, 0.6, 15.0, 0.5)),
        step_ms=25.0, images_per_second=1280.0, busy_threads=1.9, epoch_seconds=0.8, first_epoch_seconds=2.0,
        decode_ms_each=1.0, teacher=None, peak_rss_bytes=10**9, trained_bytes=10**8,
        backward=(BackwardKind("convolution", 12.0, 0.8),), tried=(Tried("batch 64", 0.7, 0.8),),
        advice=(Advice(HOSTILE, None, 0.5, "time"),), remarks=("nothing else",),
    )  # fmt: skip
    return {**found.as_json(), **REPEATED}


def _difference():
    from slimcv.profile.difference import difference

    before = _profile()
    after = json.loads(json.dumps(before))
    for layer in after["layers"]:
        layer["ms"] /= 2
    after["layers"][1] = {**after["layers"][1], "name": "block.new", "node": "new", "ms": 0.002}
    after["totals"].update(layers_ms=2.502, call_ms=2.7, runtime="openvino", precision="int8")
    before["model"] |= {"file": HOSTILE, "serves": None}
    serves = {"path": "openvino/model.xml", "runtime": "openvino", "precision": "int8"}
    after["model"] |= {"name": "leaves-slim", "file": "model.pt2", "serves": serves}
    return {**difference(before, after).as_json(), **REPEATED}


@pytest.fixture
def results(tmp_path):
    """A function that writes the JSON of a ladder, a comparison, a profile or two; the file."""

    def write(kind):
        made = {
            "ladder": _ladder, "bench": _bench, "profile": _profile, "training": _training,
            "difference": _difference,
        }[kind]()  # fmt: skip
        path = tmp_path / f"{kind}.json"
        path.write_text(json.dumps(made), "utf-8")
        return path

    return write
