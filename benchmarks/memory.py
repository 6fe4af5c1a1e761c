"""Peak memory while predicting: the original in eager PyTorch against the shipped artifact, less baseline.

Each in a process of its own with the default allocator, the runtime loaded before the baseline is read.
Prints JSON. Needs the folder that `benchmarks/latency.py --network NAME` left.
"""

import json

from reference import RESULTS, arguments, networks, print_row

from slimcv.measure.latency import Contender, peak_memory
from slimcv.models import checkpoint


def main() -> None:
    """Measure both and print the row."""
    network = networks()[arguments(__doc__).network]
    folder = RESULTS / "latency" / network.name
    report = json.loads((folder / "slim" / "report.json").read_text("utf-8"))
    runtime = report["optimized"]["runtime"]
    served = next(a["path"] for a in report["artifacts"] if a["runtime"] == runtime)
    original = checkpoint.read(folder / "original.pt2")
    slim = checkpoint.read(folder / "slim" / "model.pt2")
    found = {
        "original": peak_memory("original", Contender(folder / "original.pt2", "eager", 1, original.input)),
        "slimcv": peak_memory("slimcv", Contender(folder / "slim" / served, runtime, 1, slim.input)),
    }
    taken = {name: memory.model_bytes for name, memory in found.items()}
    print_row(
        {
            "benchmark": f"memory while predicting {network.name}",
            "bytes_over_baseline": taken,
            "baseline_bytes": {name: memory.baseline_bytes for name, memory in found.items()},
            "memory_removed_percent": 100 * (1 - taken["slimcv"] / taken["original"]),
        }
    )


if __name__ == "__main__":
    main()
