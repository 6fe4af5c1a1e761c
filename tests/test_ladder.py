"""The ladder: rows are recipes on top of each other, each has its own process, an interrupted one goes on."""

import json
import re
import shutil
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from slimcv import cli, data, ladder, models, recipe
from slimcv.errors import SlimcvError
from slimcv.ladder import Pictures
from slimcv.ladder.job import Job
from slimcv.ladder.predicting import UNASKED, predict
from slimcv.ladder.process import ask
from slimcv.ladder.rows import AFTER_BF16, NAMES, NO_BF16, NO_COMPILER, TECHNIQUES, chosen, plan
from slimcv.ladder.training import ORIGINAL, READING_STEPS, context_of, train
from slimcv.measure import environment, macs, size
from slimcv.models import capture, checkpoint
from slimcv.results import Measurement
from slimcv.run import Run
from slimcv.step import Context, InputSpec, Stage, Variant
from slimcv.train.settings import FinetuneSettings

SIZE = 12
INPUT = InputSpec(3, SIZE, SIZE)


def network(*, pooled=False):
    head = (
        (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))
        if pooled
        else (nn.Flatten(), nn.Linear(8 * 6 * 6, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 2))
    )
    body = (nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.BatchNorm2d(8))
    return nn.Sequential(*body, nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), *head).eval()


@pytest.fixture
def pictures(tmp_path):
    """Dark and bright pictures in train/ and val/."""
    random = np.random.default_rng(0)
    for split, count in (("train", 30), ("val", 8)):
        for name, brightness in (("bright", 160), ("dark", 60)):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = random.normal(brightness, 30, (SIZE, SIZE, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


def job(tmp_path, pictures, name, *, rows, number=1, above=None):
    """The training of one row, in a folder that has its recipes and the original."""
    row = next(row for row in rows if row.name == name)
    folder = tmp_path / "run"
    ladder.write_recipes(rows, folder)
    path = None if row.recipe is None else str(folder / "recipes" / f"{name}.yaml")
    return Job(
        "train", number, name, str(folder), str(pictures), None, None, True, 0, 1, 1,
        path, row.training, row.read_only, row.precision, above,
    )  # fmt: skip


@pytest.fixture
def started(tmp_path):
    """Write an original as the first checkpoint of a run directory."""

    def start(model):
        torch.manual_seed(0)
        path = tmp_path / "run" / ORIGINAL
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.save(Variant(capture.capture(model, INPUT), INPUT, ("bright", "dark")), path)
        return path

    return start


def by_name(rows):
    return {row.name: row for row in rows}


# Rows


def test_rows_keep_their_order_and_the_original_is_always_there():
    assert chosen("fuse, separable") == ("original", "separable", "fuse")
    assert chosen(",".join(NAMES)) == NAMES


def test_an_unknown_row_is_refused_with_the_nearest():
    with pytest.raises(SlimcvError, match="poling") as refused:
        chosen("original,poling")
    assert "pooling" in refused.value.hint


def test_each_row_is_the_recipe_of_the_row_above_and_one_thing_more(tmp_path):
    rows = plan(NAMES, epochs=3, compiler=True, bf16=True)
    ladder.write_recipes(rows, tmp_path)
    entries = [recipe.load(str(tmp_path / "recipes" / f"{row.name}.yaml")).entries for row in rows[1:]]
    steps = [[entry.name for entry in row] for row in entries]
    assert steps == [
        ["global_average_pool", "finetune"],
        ["global_average_pool", "depthwise_separable", "finetune"],
        ["global_average_pool", "depthwise_separable", "finetune", "compile"],
        ["global_average_pool", "depthwise_separable", "finetune", "compile"],
        ["global_average_pool", "depthwise_separable", "finetune", "fuse_conv_bn", "compile"],
    ]
    trainings = [next(e.step for e in row if e.step.stage == Stage.TRAIN) for row in entries]
    assert [step.epochs for step in trainings] == [3] * 5
    assert [step.compile for step in trainings] == [False, False, "auto", "auto", "auto"]
    assert [step.precision for step in trainings] == ["fp32", "fp32", "fp32", "bf16", "bf16"]
    assert [step.steps_per_call > 1 for step in trainings] == [False, False, False, False, True]
    assert [row[-1].step.precision for row in entries[2:]] == ["fp32", "bf16", "bf16"]


def test_rows_differ_in_their_training_by_nothing_but_their_technique():
    rows = by_name(plan(NAMES, epochs=3, compiler=True, bf16=True))
    plain, fused = (FinetuneSettings(**rows[name].training) for name in ("pooling", "fuse"))
    changed = {"compile": "auto", "precision": "bf16", "steps_per_call": fused.steps_per_call}
    assert fused == plain.model_copy(update={**changed, "fused_optimizer": True})
    assert fused.steps_per_call > 1
    unfused = [name for name, row in rows.items() if not FinetuneSettings(**row.training).fused_optimizer]
    assert unfused == ["original", "pooling", "separable", "compile", "amp"]


def test_a_cpu_without_bfloat16_reads_that_row_and_goes_on_without_it():
    rows = by_name(plan(NAMES, epochs=3, compiler=True, bf16=False))
    assert NO_BF16 in rows["amp"].notes
    assert rows["amp"].read_only
    assert rows["amp"].takes_weights_above
    assert rows["amp"].precision == rows["amp"].training["precision"] == "bf16"
    assert rows["fuse"].precision == rows["fuse"].training["precision"] == "fp32"
    assert AFTER_BF16 in rows["fuse"].notes
    assert not rows["fuse"].read_only
    assert (rows["amp"].training["compile"], rows["fuse"].training["compile"]) == (True, "auto")


def test_without_a_compiler_the_row_says_so_and_nothing_is_compiled():
    rows = by_name(plan(NAMES, epochs=3, compiler=False, bf16=True))
    assert NO_COMPILER in rows["compile"].notes
    assert not any("compile" in row.training for row in rows.values())
    assert rows["compile"].recipe.count("compile") == 1, "in its description alone"
    assert rows["amp"].precision == "bf16"


def test_without_epochs_every_row_is_only_read():
    rows = plan(NAMES, epochs=0, compiler=True, bf16=True)
    assert all(row.read_only for row in rows)
    assert not any("finetune" in (row.recipe or "") for row in rows)


@pytest.mark.slow
def test_the_lessons_parameters_come_out_exactly(tmp_path):
    """The network of the lesson's table, at its size, with parameters counted together with float buffers."""
    layers, channels = [], 3
    for width in (64, 128, 256, 256, 512):
        for _ in range(2):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers += [nn.MaxPool2d(2), nn.BatchNorm2d(width, eps=1e-3)]
    head = (nn.Flatten(), nn.Linear(512 * 49, 64), nn.ReLU(), nn.BatchNorm1d(64), nn.Dropout(0.3))
    spec = InputSpec(3, 224, 224)
    naive = nn.Sequential(*layers, *head, nn.Linear(64, 6))
    variant = Variant(capture.capture(naive, spec), spec)
    context = Context(variant, None, tmp_path, threads=1, train_threads=1)
    rows = plan(NAMES, epochs=1, compiler=True, bf16=True)
    ladder.write_recipes(rows, tmp_path)
    few = ("global_average_pool.calibration_images=2", "depthwise_separable.correct=false")
    chosen_recipe = recipe.load(str(tmp_path / "recipes" / "fuse.yaml"), overrides=few)
    counted = [size.parameters(variant.model) + size.buffers(variant.model)]
    for entry in chosen_recipe.entries[:2]:
        variant = entry.step.apply(variant, context)
        counted.append(size.parameters(variant.model) + size.buffers(variant.model))
    assert counted == [7_476_742, 5_873_478, 679_137]
    assert macs.count(variant.model, spec) == 1_079_288_832


# One row


def test_the_original_is_read_from_a_few_steps_and_left_as_it_is(tmp_path, pictures, started):
    path = started(network())
    before = path.read_bytes()
    rows = plan(NAMES, epochs=2, compiler=False, bf16=False)
    found = train(job(tmp_path, pictures, "original", rows=rows, number=0))
    assert found.checkpoint == ORIGINAL
    assert path.read_bytes() == before
    assert 1 <= found.read_steps <= READING_STEPS
    images = len(data.load(str(pictures)).train)
    assert found.seconds_per_epoch == pytest.approx(images / found.images_per_second)
    assert found.teacher_seconds == 0.0


def test_a_row_is_trained_by_its_recipe_and_keeps_the_form_for_the_next_ones(tmp_path, pictures, started):
    started(network())
    rows = plan(NAMES, epochs=2, compiler=False, bf16=False)
    found = train(job(tmp_path, pictures, "pooling", rows=rows))
    assert found.epochs == 2
    assert found.read_steps is None
    assert found.seconds_per_epoch > 0
    trained = checkpoint.read(tmp_path / "run" / found.checkpoint)
    assert trained.details["finetune"]["epochs"] == 2
    forms = list((tmp_path / "run" / "work" / "forms").glob("*.pt2"))
    assert len(forms) == 1
    assert "finetune" not in checkpoint.read(forms[0]).details, (
        "the next row does not start from a trained one"
    )


def test_a_row_is_set_against_the_first_picture_by_picture(tmp_path, pictures, started):
    started(network())
    rows = plan(NAMES, epochs=1, compiler=False, bf16=False)
    first = replace(job(tmp_path, pictures, "original", rows=rows, number=0), do="predict", network=ORIGINAL)
    assert predict(first).measurement["paired"] is None
    other = network()
    with torch.no_grad():
        other[-1].bias += torch.tensor([100.0, 0.0])
    path = tmp_path / "run" / "checkpoints" / "other.pt2"
    checkpoint.save(Variant(capture.capture(other, INPUT), INPUT, ("bright", "dark")), path)
    second = replace(first, number=1, name="pooling", network=str(path.relative_to(tmp_path / "run")))
    found = Measurement.from_json(predict(second).measurement)
    before = Measurement.from_json(predict(first).measurement)
    assert found.top1 == 50.0
    assert found.paired.pictures == 16
    assert found.paired.difference == pytest.approx(found.top1 - before.top1)


def test_a_technique_without_anything_to_change_is_left_out_and_says_why(tmp_path, pictures, started):
    started(network(pooled=True))
    rows = plan(NAMES, epochs=0, compiler=False, bf16=False)
    skipped = train(job(tmp_path, pictures, "pooling", rows=rows))
    assert skipped.checkpoint is None
    assert skipped.notes[0].startswith("left out: ")
    later = train(job(tmp_path, pictures, "separable", rows=rows, number=2))
    assert later.checkpoint is not None


def test_emulated_bfloat16_is_read_and_has_the_weights_of_the_row_above(tmp_path, pictures, started):
    started(network())
    rows = plan(("original", "amp"), epochs=2, compiler=False, bf16=False)
    found = train(job(tmp_path, pictures, "amp", rows=rows, above=ORIGINAL))
    assert found.read_steps is not None
    own, original = (checkpoint.read(tmp_path / "run" / path) for path in (found.checkpoint, ORIGINAL))
    assert all(
        torch.equal(value, original.model.state_dict()[name])
        for name, value in own.model.state_dict().items()
    )


def test_a_row_predicts_folded_in_bfloat16_with_the_parameters_that_were_trained(tmp_path, pictures, started):
    started(network())
    rows = plan(("original", "amp", "fuse"), epochs=1, compiler=False, bf16=True)
    asked = replace(job(tmp_path, pictures, "fuse", rows=rows), do="predict", network=ORIGINAL)
    served = predict(asked)
    assert [
        re.fullmatch(r"folded for prediction: \d of 1 BatchNorms", note) is not None for note in served.notes
    ] == [True]
    assert (served.runtime, served.measurement["precision"]) == ("eager", "bf16")
    original = checkpoint.read(tmp_path / "run" / ORIGINAL)
    assert served.measurement["parameters"] == size.parameters(original.model)
    assert served.measurement["top1"] is not None
    written = checkpoint.read(tmp_path / "run" / served.file)
    assert written.precision == "bf16"


def test_where_compiling_is_not_possible_after_all_eager_pytorch_predicts_and_the_row_says_so(
    tmp_path, pictures, started, monkeypatch
):
    started(network())
    rows = plan(("original", "compile"), epochs=1, compiler=True, bf16=False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", "")
    asked = replace(job(tmp_path, pictures, "compile", rows=rows), do="predict", network=ORIGINAL)
    served = predict(asked)
    assert served.runtime == "eager"
    (note,) = served.notes
    assert note.startswith("compile: ")
    assert "C++ compiler" in note


@pytest.mark.slow
def test_what_compiles_for_one_picture_and_not_for_many_is_measured_uncompiled(tmp_path, pictures, started):
    """The proof asks about single pictures, val/ is asked about in batches: the compiler fails in between."""
    import torch._inductor.config as inductor_config
    from torch._inductor.utils import fresh_cache

    started(network())
    rows = plan(("original", "compile"), epochs=1, compiler=True, bf16=False)
    asked = replace(job(tmp_path, pictures, "compile", rows=rows), do="predict", network=ORIGINAL)
    compiler, broken = tmp_path / "g++", tmp_path / "broken"
    compiler.write_text(f'#!/bin/sh\n[ -e {broken} ] && exit 1\nexec {shutil.which("g++")} "$@"\n')
    compiler.chmod(0o755)
    with fresh_cache(), inductor_config.patch({"cpp.cxx": (None, str(compiler))}):
        (step,) = (entry.step for entry in recipe.load(asked.recipe).entries if entry.name == "compile")
        step.apply(checkpoint.read(tmp_path / "run" / ORIGINAL), context_of(asked))
        broken.touch()
        served = predict(asked)
    assert served.runtime == "eager"
    (note,) = served.notes
    assert note.startswith("measured uncompiled: torch.compile failed")
    assert served.measurement["top1"] is not None


@pytest.mark.slow
def test_what_a_rows_process_cannot_do_is_said_by_the_parent(tmp_path, pictures):
    (tmp_path / "run").mkdir()
    rows = plan(("original",), epochs=0, compiler=False, bf16=False)
    with pytest.raises(SlimcvError, match="000-original"):
        ask(job(tmp_path, pictures, "original", rows=rows, number=0))


# All rows


@pytest.mark.slow
def test_an_interrupted_ladder_goes_on_at_the_row_where_it_stopped(tmp_path, pictures):
    torch.save(network(), tmp_path / "model.pt")
    dataset = data.load(str(pictures))
    variant = models.load(str(tmp_path / "model.pt"), input=f"3x{SIZE}x{SIZE}", classes=dataset.classes)
    rows = plan(("original",), epochs=0, compiler=False, bf16=False)

    def first_record():
        with Run.open(tmp_path / "out", identity={"a": 1}) as run:
            context = Context(variant, dataset, run.workdir, threads=1, train_threads=1)
            return next(ladder.climb(rows, context, run, pictures=Pictures(str(pictures)))), run.resumed

    measured, resumed = first_record()
    assert not resumed
    assert measured.measurement.top1 is not None
    checkpoints = tmp_path / "out" / "checkpoints"
    written = {path: path.stat().st_mtime_ns for path in checkpoints.iterdir()}
    again, _ = first_record()
    assert again == measured
    assert {path: path.stat().st_mtime_ns for path in checkpoints.iterdir()} == written


# The command


def call(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["slimcv", "ladder", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    return ended.value.code, said.out, said.err


def test_a_ladder_needs_pictures(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, "model.pt")
    assert (code, out) == (2, "")
    assert "--data" in err.splitlines()[-1]


def test_an_unknown_row_is_told_before_anything_is_loaded(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    code, _, err = call(monkeypatch, capsys, "model.pt", "--data", "pictures", "--rows", "original,fuze")
    assert code == 2
    assert "'fuze'" in err
    assert "fuse" in err.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_command_climbs_all_rows_and_writes_table_data_picture_and_page(
    monkeypatch, capsys, tmp_path, pictures
):
    monkeypatch.chdir(tmp_path)
    torch.save(network(), "model.pt")
    words = ("model.pt", "--data", pictures, "--input", f"3x{SIZE}x{SIZE}")
    code, out, _ = call(monkeypatch, capsys, *words, "--epochs", 1, "--threads", 1, "--format", "json")
    assert code == 0
    document = json.loads(out)
    folder = tmp_path / "model-ladder"
    assert document == json.loads((folder / "ladder.json").read_text("utf-8"))
    assert "| + pooling |" in (folder / "ladder.md").read_text("utf-8")
    assert ElementTree.parse(folder / "ladder.svg").getroot().tag.endswith("svg")
    page = (folder / "report.html").read_text("utf-8")
    assert "row upon row" in page
    assert all(f"+ {name}" in page for name in TECHNIQUES)
    assert not (folder / "work").exists()
    assert [row["name"] for row in document["rows"]] == list(NAMES)
    assert {row["outcome"] for row in document["rows"]} == {"measured"}
    by = {row["name"]: row for row in document["rows"]}
    counts = {
        name: (by[name]["measurement"]["parameters"], by[name]["measurement"]["macs"]) for name in NAMES
    }
    assert counts["original"] > counts["pooling"] > counts["separable"]
    assert counts["separable"] == counts["compile"] == counts["amp"] == counts["fuse"]
    notes = {name: "; ".join(by[name]["notes"]) for name in NAMES}
    for name in ("compile", "fuse"):
        compiled = by[name]["measurement"]["runtime"] == "inductor"
        tried = "compiled for training in " in notes[name] or "a step takes " in notes[name]
        assert compiled == tried
        assert compiled or NO_COMPILER in notes["compile"]
    assert re.search(r"folded for prediction: |fuse_conv_bn: nothing to fuse", notes["fuse"])
    assert by["amp"]["measurement"]["precision"] == "bf16"
    assert environment.has_bf16_instructions() == (NO_BF16 not in notes["amp"])
    for row in document["rows"]:
        measured = row["measurement"]
        figures = (measured["latency_ms"]["p50"], measured["train_seconds_per_epoch"], measured["size_bytes"])
        assert all(figure > 0 for figure in figures)
        assert measured["top1"] is not None or UNASKED in notes[row["name"]]
        assert row["training"]["epochs"] == 1 or row["training"]["read_steps"] is not None
        assert row["training"]["peak_bytes"] is not None
        assert measured["peak_rss_bytes"] is not None
    assert None not in by["pooling"]["ratios"].values()
    assert None not in by["fuse"]["ratios"].values()
