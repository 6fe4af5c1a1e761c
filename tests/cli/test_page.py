"""The page that `bench` and `profile` leave without being asked, and where it was asked for."""

import logging

import pytest
from typer.testing import CliRunner

from slimcv import cli
from slimcv.cli.page import write_html
from slimcv.errors import SlimcvError

DOCUMENT = {"mode": "latency", "rows": [], "environment": {"cpu": "a CPU"}}


def test_without_a_name_the_page_lies_in_the_cache_and_the_next_replaces_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    page = tmp_path / "slimcv" / "reports" / "bench.html"
    write_html(None, DOCUMENT, command="bench")
    first = page.read_text("utf-8")
    assert first.startswith("<!DOCTYPE html>")
    assert str(page) in capsys.readouterr().err
    page.write_text("an older one", "utf-8")
    write_html(None, DOCUMENT, command="bench")
    assert page.read_text("utf-8") == first


def test_a_cache_that_cannot_be_written_costs_the_page_and_nothing_else(tmp_path, monkeypatch, caplog):
    (tmp_path / "slimcv").write_text("a file where the folder would be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with caplog.at_level(logging.WARNING, "slimcv"):
        write_html(None, DOCUMENT, command="bench")
    assert "no page was written" in caplog.text


def test_a_named_page_that_cannot_be_written_is_an_error(tmp_path):
    with pytest.raises(SlimcvError, match="--html"):
        write_html(tmp_path, DOCUMENT, command="bench")
    write_html(tmp_path / "new" / "page.html", DOCUMENT, command="bench")
    assert (tmp_path / "new" / "page.html").is_file()


def test_two_models_have_no_roofline_of_their_own():
    words = ["profile", "--diff", "model.pt", "other.pt", "--roofline", "roof.svg"]
    done = CliRunner().invoke(cli.app, words)
    assert isinstance(done.exception, SlimcvError)
    assert "--roofline is for one model" in str(done.exception)


@pytest.mark.parametrize(
    ("models", "name"),
    [
        (["some/where/net.pt"], "profile-net.html"),
        (["torchvision:resnet18?num_classes=6"], "profile-resnet18-num_classes-6.html"),
        (["a.pt2", "net-slim/"], "profile-a-net-slim.html"),
        (["../..", "<b>"], "profile-model-b.html"),
        (["x" * 300], f"profile-{'x' * 60}.html"),
    ],
)
def test_pages_about_models_are_kept_apart(tmp_path, monkeypatch, models, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_html(None, DOCUMENT, command="profile", about=models)
    assert [path.name for path in (tmp_path / "slimcv" / "reports").iterdir()] == [name]
