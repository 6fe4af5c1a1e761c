"""Whether zeros save time in OpenVINO's INT8 dense layers with its sparse weights decompression.

    benchmarks/sparse_weights.py                 about a minute
    benchmarks/sparse_weights.py --seconds 300   more rounds

Four dense layers of 4,096 × 4,096 in 8 bits, 67 MB together, so that reading the weights is most of the work
at batch 1. Their weights have no zeros, 80 or 90 %, each compiled with the CPU property
`CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE` and without; all take turns, one thread. OpenVINO's documentation says
that the property needs AMX; where a CPU has none it is accepted and changes nothing. `kernels` are the
primitives that ran. Prints JSON.
"""

import argparse
import time
from statistics import median
from typing import Any

import numpy as np
from reference import print_row

from slimcv.runtimes import openvino as openvino_runtime

WIDTH, LAYERS = 4096, 4
ZEROS = (0.0, 0.8, 0.9)
THRESHOLD = 0.5
"""Share of zeros from which on the plugin may pack a layer's weights."""

WARM_UPS = 3


def network(openvino: Any, zeros: float) -> Any:
    """Dense layers with ReLUs, their inputs in 8 bits, this share of their weights zero."""
    ops, random = openvino.opset13, np.random.default_rng(0)
    x = given = ops.parameter([1, WIDTH], np.float32)
    for _ in range(LAYERS):
        low, high = np.float32(0.0), np.float32(4.0)
        x = ops.fake_quantize(x, low, high, low, high, 256)
        weights = random.integers(-127, 128, (WIDTH, WIDTH), dtype=np.int8)
        weights[random.random(weights.shape, dtype=np.float32) < zeros] = 0
        scaled = ops.multiply(ops.convert(ops.constant(weights), "f32"), np.float32(3e-4))
        x = ops.relu(ops.matmul(x, scaled, False, True))
    return openvino.Model([x], [given])


def kernels(compiled: Any) -> list[str]:
    """The primitives of the dense layers, each named once."""
    nodes = [node for node in compiled.get_runtime_model().get_ops() if "primitiveType" in node.get_rt_info()]
    told = [(node.get_rt_info()["layerType"].astype(str), node) for node in nodes]
    return sorted(
        {
            node.get_rt_info()["primitiveType"].astype(str)
            for kind, node in told
            if kind in ("FullyConnected", "MatMul")
        }
    )


def main() -> None:
    """Compile all six and time them in turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    openvino = openvino_runtime.import_library()
    core, requests, rows = openvino.Core(), [], []
    for zeros in ZEROS:
        model = network(openvino, zeros)
        for rate in (None, THRESHOLD):
            config: dict[str, Any] = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
            if rate is not None:
                config["CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE"] = rate
            compiled = core.compile_model(model, "CPU", config)
            requests.append(compiled.create_infer_request())
            rows.append({"zeros": zeros, "property": rate, "kernels": kernels(compiled)})
    x = np.random.default_rng(1).random((1, WIDTH), dtype=np.float32)
    spent: list[list[float]] = [[] for _ in requests]
    for request in requests * WARM_UPS:
        request.infer([x])
    begun = time.perf_counter()
    while time.perf_counter() - begun < given.seconds:
        # Each round begins with another one, since a call finds what the one before left in the caches.
        first = len(spent[-1]) % len(requests)
        for at in (*range(first, len(requests)), *range(first)):
            start = time.perf_counter()
            requests[at].infer([x])
            spent[at].append(1000 * (time.perf_counter() - start))
    for row, times in zip(rows, spent, strict=True):
        quarter, half, upper = np.percentile(times, [25, 50, 75])
        row |= {"p50_ms": round(half, 3), "spread": round((upper - quarter) / 2 / half, 3), "n": len(times)}
    dense = [median(a / b for a, b in zip(spent[0], times, strict=True)) for times in spent]
    for row, ratio in zip(rows, dense, strict=True):
        row["speedup"] = round(ratio, 3)
    print_row({"rows": rows})


if __name__ == "__main__":
    main()
