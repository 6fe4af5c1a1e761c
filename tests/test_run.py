"""The run directory: journal, resumption, and what happens when the disk refuses."""

import json

import pytest

from slimcv.errors import SlimcvError
from slimcv.results import Latency, Measurement, Record
from slimcv.run import JOURNAL, Run

IDENTITY = {"model": "abc", "seed": 0}


def record(number, outcome="accepted"):
    figures = Measurement(10, 2, 100, latency_ms=Latency(1.0, 1.1, None, 50, 0.02), top1=90.0)
    return Record(number, number, "fuse_conv_bn", outcome, "1.2× the speed before", 1.5, measurement=figures)


def test_a_new_run_has_nothing_to_replay(tmp_path):
    run = Run.open(tmp_path / "out", identity=IDENTITY)
    assert not run.resumed
    assert run.replay() is None


def test_records_are_replayed_in_order_exactly_as_committed(tmp_path):
    run = Run.open(tmp_path / "out", identity=IDENTITY)
    for number in range(3):
        run.commit(record(number))
    again = Run.open(tmp_path / "out", identity=IDENTITY)
    assert again.resumed
    assert [again.replay() for _ in range(4)] == [record(0), record(1), record(2), None]


def test_a_torn_last_line_is_dropped_and_the_journal_goes_on_whole(tmp_path):
    run = Run.open(tmp_path / "out", identity=IDENTITY)
    run.commit(record(0))
    with (tmp_path / "out" / JOURNAL).open("a") as journal:
        journal.write('{"record": {"number": 1, "ent')
    again = Run.open(tmp_path / "out", identity=IDENTITY)
    assert again.replay() == record(0)
    assert again.replay() is None
    again.commit(record(1))
    lines = (tmp_path / "out" / JOURNAL).read_text().splitlines()
    assert [json.loads(line)["record"]["number"] for line in lines[1:]] == [0, 1]


def test_a_folder_of_another_run_is_refused_and_says_what_differs(tmp_path):
    Run.open(tmp_path / "out", identity=IDENTITY).commit(record(0))
    with pytest.raises(SlimcvError, match="another seed") as caught:
        Run.open(tmp_path / "out", identity={**IDENTITY, "seed": 1})
    assert "--overwrite" in caught.value.hint
    assert Run.open(tmp_path / "out", identity=IDENTITY).replay() == record(0)


def test_overwrite_starts_anew_and_leaves_foreign_files_alone(tmp_path):
    Run.open(tmp_path / "out", identity=IDENTITY).commit(record(0))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    run = Run.open(tmp_path / "out", identity={**IDENTITY, "seed": 1}, overwrite=True)
    assert not run.resumed
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SlimcvError, match="not empty"):
        Run.open(tmp_path, identity=IDENTITY)
    with pytest.raises(SlimcvError, match="not empty"):
        Run.open(tmp_path, identity=IDENTITY, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlimcvError, match="cannot be written"):
        Run.open(tmp_path / "file" / "out", identity=IDENTITY)


def test_state_is_remembered_across_processes_until_the_run_is_finished(tmp_path):
    run = Run.open(tmp_path / "out", identity=IDENTITY)
    assert run.recall("original") is None
    run.remember("original", {"top1": 95.0})
    again = Run.open(tmp_path / "out", identity=IDENTITY)
    assert again.recall("original") == {"top1": 95.0}
    again.finish()
    assert not (tmp_path / "out" / "work").exists()
