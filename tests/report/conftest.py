"""One made-up run, from which each test changes what it is about."""

import dataclasses

import pytest

from slimcv import report
from slimcv.results import Artifact, Latency, Measurement, Record

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
