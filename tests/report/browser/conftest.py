"""A real Chromium, in which nothing of a page can reach a network."""

import os
import shutil

import pytest
import torch
from torch import nn

from slimcv import cli

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--headless=new", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    for item in items:
        if "/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


RECIPE = "steps: [finetune: {epochs: 2}, fuse_conv_bn]"


@pytest.fixture(scope="session")
def real_run(tmp_path_factory, write_noise):
    """The folder of a quick run of `slimcv optimize` on a tiny network with pictures."""
    folder = tmp_path_factory.mktemp("real")
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(8, 2),
    )  # fmt: skip
    torch.save(network, folder / "model.pt")
    write_noise(folder, size=16, each=20)
    (folder / "recipe.yaml").write_text(RECIPE, "utf-8")
    words = "optimize model.pt --recipe recipe.yaml --data pictures --input 3x16x16 --threads 1 --quick"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr("sys.argv", ["slimcv", *words.split()])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0
    return folder / "model-slim"


@pytest.fixture(scope="session")
def chromium():
    """The browser, started once."""
    found = os.environ.get("SLIMCV_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        message = "there is no Chromium: apt-get install chromium, or name one in SLIMCV_CHROMIUM"
        if os.environ.get("SLIMCV_BROWSER_TESTS") == "required":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium):
    """A function that opens a file; what the page complains of or asks for is in `said` and `asked`."""
    contexts = []

    def opened(path, *, width=1280, scheme="light"):
        context = chromium.new_context(
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            offline=True,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("dialog", lambda dialog: (page.said.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()


@pytest.fixture
def unfolded(show):
    """Like `show`, with every table unfolded."""

    def opened(path, **options):
        page = show(path, **options)
        page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
        return page

    return opened
