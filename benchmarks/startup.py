"""How long `slimcv --help` takes, and that it does not import torch. Prints JSON."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from reference import print_row

CALLS = 20


def main() -> None:
    """Median of twenty calls of the installed command."""
    command = str(Path(sys.executable).parent / "slimcv")
    seconds = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        subprocess.run([command, "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - begun)
    code = "import sys, slimcv.cli; print('torch' in sys.modules)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    print_row(
        {
            "benchmark": "start-up",
            "help_seconds": statistics.median(seconds),
            "torch_imported": imported.strip() == "True",
        }
    )


if __name__ == "__main__":
    main()
