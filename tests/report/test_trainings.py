"""What a training's teacher cost and its remarks, in every form of the report."""

import re

import pytest

from slimcv import report
from slimcv.report import trainings
from slimcv.report.html import render_html
from slimcv.report.reading import read
from slimcv.results import Record

REMARK = "a batch of 32 did not fit: 16 is taken"
TAUGHT = {
    "epochs": 3, "seconds_per_epoch": 3.0, "batch": 32, "precision": "fp32", "best": 1, "stopped": "diverged",
    "history": [{"number": 1, "lr": 0.1, "seconds": 3.0, "tuning_top1": 90.0}],
    "teacher": "cached", "teacher_form": "PyTorch bf16", "teacher_seconds": 12.4, "teacher_share": 0.083,
    "remarks": [REMARK],
}  # fmt: skip


@pytest.fixture
def told(make_report):
    """A function that renders a run with two steps that carry one training, as one line of words."""

    def render(form, **changes):
        details = {"variant": {"finetune": {**TAUGHT, **changes}}}
        records = [
            Record(4, 1, "finetune", "accepted", "", 60.0, details=details),
            Record(5, 2, "fuse_conv_bn", "accepted", "", 1.0, details=details),
        ]
        document = make_report(records=records)
        drawn = report.render(document, form)
        if form == "text":
            assert max(len(line) for line in drawn.splitlines()) <= 80
        return " ".join(drawn.split())

    return render


@pytest.mark.parametrize("form", ["text", "markdown"])
def test_what_the_teacher_cost_is_told_once_with_what_was_otherwise_than_asked(told, form):
    text = told(form).replace("\\", "")
    assert text.lower().count("training in step 4, finetune: ") == 1
    assert "(PyTorch bf16, asked once beforehand) took 12 s, 8.3 % of the training" in text
    assert REMARK in text
    assert "step 5, fuse_conv_bn:" not in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher": "live"}, "(PyTorch bf16, asked in every step) took 12 s"),
        (
            {"teacher_seconds": 0.0, "teacher_share": 0.0},
            "the teacher cost nothing, its outputs were on disk",
        ),
        (
            {"teacher": None, "teacher_seconds": 0.0, "teacher_share": 0.0},
            "learnt from the labels alone, without a teacher",
        ),
    ],
)
def test_every_way_of_asking_the_teacher_has_its_words(told, changes, words):
    assert words in told("text", **changes)


def test_the_page_tells_it_with_hostile_remarks_as_text(make_run):
    page = render_html([read(make_run())])
    seen = re.sub(r"\s+", " ", page)
    assert (
        "Training in step 3, reduce_resolution: the teacher (OpenVINO, asked in every step) took "
        "1 min 15 s, 25.0 % of the training; a batch of 8 &lt;script&gt;" in seen
    )


def test_a_run_that_kept_no_cost_of_the_teacher_says_nothing(make_report):
    kept = {key: value for key, value in TAUGHT.items() if not key.startswith("teacher") and key != "remarks"}
    details = {"variant": {"finetune": kept}}
    document = make_report(records=[Record(4, 1, "finetune", "accepted", "", 60.0, details=details)])
    assert trainings.lines(document) == []
    assert "## Training" not in report.render(document, "markdown")
