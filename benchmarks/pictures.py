"""The pictures in README and docs, drawn from real runs of slimcv on the demo's digits.

Runs `slimcv ladder`, `sensitivity`, `profile` and `optimize` as a user would, takes their charts as they are
and photographs the page of `optimize` in a headless Chromium; everything goes to docs/pictures/. Folders of
runs below .cache/demo/ are kept: a second call draws finished ones again. Prints their bytes as JSON.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from demo import FOLDER, prepare
from PIL import Image

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
MOST_BYTES = 150_000
LADDER_ROWS, LADDER_EPOCHS = "original,pooling,separable,fuse", 2
RECIPE = "cpu_int8"
"""It trains nothing, so that all pictures take some minutes."""

GATE_MISSED = 3
"""Exit code of a run that is finished and has a page all the same."""

COLOURS = 128
"""Of a palette: a page is drawn with a few dozen, the rest are the edges of its letters."""

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SCREENS = {"report-desktop": (1100, 860, 1), "report-phone": (390, 844, 2)}
"""Width and height in CSS pixels, and device pixels for each of them."""


def run(*words: str) -> None:
    """One slimcv command in the demo's folder, which must come to an end."""
    print("$ " + " ".join(("slimcv", *words)), file=sys.stderr, flush=True)
    command = [str(Path(sys.executable).parent / "slimcv"), *words]
    done = subprocess.run(command, cwd=FOLDER, stdout=subprocess.DEVNULL, check=False)
    if done.returncode not in (0, GATE_MISSED):
        sys.exit(f"slimcv {words[0]} ended with {done.returncode}")


def charts() -> Iterator[Path]:
    """The charts that the commands draw themselves."""
    epochs = str(LADDER_EPOCHS)
    run("ladder", "model.pt", "--rows", LADDER_ROWS, "--epochs", epochs, "--out", "ladder")
    yield FOLDER / "ladder" / "ladder.svg"
    run("sensitivity", "model.pt", "--out", "sensitivity")
    yield FOLDER / "sensitivity" / "sensitivity.svg"
    run("profile", "model.pt", "--runtime", "openvino", "--threads", "1", "--roofline", "roofline.svg")
    yield FOLDER / "roofline.svg"


def screenshots(page: Path) -> Iterator[tuple[str, bytes]]:
    """What the top of a page looks like on each screen, as PNG with a palette."""
    from playwright.sync_api import sync_playwright

    found = os.environ.get("SLIMCV_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit("there is no Chromium: apt-get install chromium, or name one in SLIMCV_CHROMIUM")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--headless=new", "--disable-gpu"])
        for name, (width, height, scale) in SCREENS.items():
            screen = browser.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=scale,
                color_scheme="light",
                reduced_motion="reduce",
                offline=True,
            )
            opened = screen.new_page()
            opened.goto(page.as_uri())
            yield name, opened.screenshot()
        browser.close()


def with_palette(png: bytes) -> bytes:
    """The same picture with few colours and without a transparent channel."""
    written = io.BytesIO()
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture.quantize(COLOURS, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return written.getvalue()


def main() -> None:
    """Draw every picture, and refuse one that is too large for a page."""
    prepare()
    PICTURES.mkdir(parents=True, exist_ok=True)
    drawn = {chart.name: chart.read_bytes() for chart in charts()}
    run("optimize", "model.pt", "--recipe", RECIPE, "--out", "report")
    page = FOLDER / "report" / "report.html"
    drawn |= {f"{name}.png": with_palette(png) for name, png in screenshots(page)}
    for name, content in drawn.items():
        if len(content) > MOST_BYTES:
            sys.exit(f"{name} has {len(content):,} bytes, more than {MOST_BYTES:,}")
        (PICTURES / name).write_bytes(content)
    print(json.dumps({name: len(content) for name, content in sorted(drawn.items())}, indent=2))


if __name__ == "__main__":
    main()
