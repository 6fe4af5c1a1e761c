"""How near what was foretold comes to what was measured: `predictions.py RUN...`, runs of `slimcv optimize`.

For every step that was timed and had been foretold, both speed-ups and the error, |foretold / measured - 1|;
then the median error over all. Prints JSON.
"""

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any


def rows(folder: Path) -> list[dict[str, Any]]:
    """A row for each step of a run's report.json that was foretold and measured."""
    report = json.loads((folder / "report.json").read_text("utf-8"))
    found = []
    for step in report["steps"]:
        foretold = step["details"].get("foretold")
        before, after = (
            (step[key] or {}).get("latency_ms") or {"p50": None} for key in ("before", "measurement")
        )
        if foretold is None or before["p50"] is None or after["p50"] is None:
            continue
        measured = before["p50"] / after["p50"]
        found.append(
            {
                "run": folder.name,
                "step": step["name"],
                "foretold": foretold["speedup"],
                "measured": measured,
                "error": abs(foretold["speedup"] / measured - 1),
                "timed_share": foretold["timed_share"],
            }
        )
    return found


def main(folders: list[str]) -> None:
    """Print the rows of all runs and their median error."""
    if not folders:
        sys.exit("usage: predictions.py RUN...")
    found = [row for folder in folders for row in rows(Path(folder))]
    errors = [row["error"] for row in found]
    print(json.dumps({"steps": found, "median_error": median(errors) if errors else None}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
