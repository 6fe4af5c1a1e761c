"""How good the predictions of `slimcv profile` are, and what they cost.

`predictions.py RUN...` reads runs of `slimcv optimize`: for every step that was timed and had been foretold,
both speed-ups and the error, |foretold / measured - 1|; then the median error over all, and step by step.
The same for the share of the bytes that is left, and for the time of a gradient, where a step changes what is
trained.

`predictions.py --row profile` calls `slimcv profile torchvision:resnet50` as a user would: the whole
command's wall time (to be at most 20 s on two cores), and its peak memory over that of a plain process that
builds the network and predicts once (to be at most 300 MB). `--model` and `--runtime` ask for others.

Prints JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import reference

from slimcv.report import foretold

SECONDS_BETWEEN_LOOKS = 0.02

COMMAND = """
import sys
sys.path.insert(0, {folder!r})
import reference
reference.make_torchvision_importable()
sys.argv = {words!r}
from slimcv.cli import main
main()
"""

PLAIN = """
import sys
sys.path.insert(0, {folder!r})
import reference
reference.make_torchvision_importable()
import torch, torchvision
model = torchvision.models.get_model({name!r}).eval()
with torch.inference_mode():
    model(torch.zeros(1, 3, 224, 224))
"""


def rows(folder: Path) -> list[dict[str, Any]]:
    """A row for each step of a run's report.json that was foretold and measured."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    return [
        {
            "run": folder.name,
            "step": one.step.partition(". ")[2],
            "foretold": one.foretold,
            "measured": one.measured,
            "error": one.error,
            "timed_share": one.timed_share,
            "verdict": one.verdict,
            "bytes_error": one.bytes_error,
            "gradient": one.training and dict(zip(("foretold", "measured"), one.training, strict=True)),
            "gradient_error": one.training_error,
        }
        for one in foretold.of(report)
    ]


def errors(folders: list[str]) -> dict[str, Any]:
    """The rows of all runs, and the median error of all, of each step and of each run."""
    found = [row for folder in folders for row in rows(Path(folder))]
    groups: dict[str, dict[str, list[float]]] = {"step": defaultdict(list), "run": defaultdict(list)}
    for row in found:
        for key, group in groups.items():
            group[row[key]].append(row["error"])
    return {
        "steps": found,
        "median_error": median(row["error"] for row in found) if found else None,
        **{f"median_{key}": _median(found, key) for key in ("bytes_error", "gradient_error")},
        **{
            f"median_error_by_{key}": {name: median(values) for name, values in sorted(group.items())}
            for key, group in groups.items()
        },
    }


def _median(found: list[dict[str, Any]], key: str) -> float | None:
    known = [row[key] for row in found if row[key] is not None]
    return median(known) if known else None


def profiled(model: str, runtime: str, threads: int) -> dict[str, Any]:
    """The whole command, then a plain process, each with its wall time and its peak memory in bytes."""
    words = ["slimcv", "profile", model, "--runtime", runtime, "--threads", str(threads), "--format", "json"]
    folder = str(Path(__file__).parent)
    command = watched(COMMAND.format(folder=folder, words=words))
    plain = watched(PLAIN.format(folder=folder, name=model.removeprefix("torchvision:")))
    told = json.loads(command.pop("out"))
    plain.pop("out")
    return {
        "model": model,
        "runtime": runtime,
        "threads": threads,
        **command,
        "plain": plain,
        "over_plain_bytes": command["peak_bytes"] - plain["peak_bytes"],
        "layers_ms": told["totals"]["layers_ms"],
        "call_ms": told["totals"]["call_ms"],
        "foretold": [one["step"] for one in told["predictions"] if one["after_ms"] is not None],
    }


def watched(program: str) -> dict[str, Any]:
    """Run a program of Python: seconds, the peak of its own memory, and of it with all its processes.

    It is looked at from outside, every 20 ms, because a profile resets the kernel's count of its peak.
    """
    alone = together = 0
    begun = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        process = subprocess.Popen([sys.executable, "-c", program], stdout=out)
        seen = psutil.Process(process.pid)
        while process.poll() is None:
            try:
                alone = max(alone, _peak(process.pid))
                together = max(together, sum(map(_resident, (seen, *seen.children(recursive=True)))))
            except (psutil.Error, OSError):
                continue  # It has just ended.
            time.sleep(SECONDS_BETWEEN_LOOKS)
        seconds = time.perf_counter() - begun
        out.seek(0)
        text = out.read()
    if process.returncode:
        sys.exit(f"ended with {process.returncode}")
    return {"seconds": seconds, "peak_bytes": alone, "peak_with_children_bytes": together, "out": text}


def _peak(pid: int) -> int:
    """The most resident since the count was last reset."""
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), "VmHWM: 0 kB")
    return 1024 * int(line.split()[1])


def _resident(child: psutil.Process) -> int:
    try:
        return int(child.memory_info().rss)
    except psutil.Error:
        return 0


def main() -> None:
    """Print what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="*", metavar="RUN", help="folders of finished runs")
    parser.add_argument("--row", choices=("errors", "profile"), default="errors")
    parser.add_argument("--model", default="torchvision:resnet50")
    parser.add_argument("--runtime", default="eager")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    if asked.row == "profile":
        reference.print_row(profiled(asked.model, asked.runtime, asked.threads))
    elif asked.runs:
        print(json.dumps(errors(asked.runs), indent=2))
    else:
        parser.error("name folders of runs, or --row profile")


if __name__ == "__main__":
    main()
