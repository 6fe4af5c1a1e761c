"""The run directory: journal, resumption, and what happens when the disk refuses."""

import errno
import fcntl
import json
import os

import pytest

from slimcv.errors import SlimcvError
from slimcv.results import Latency, Measurement, Record
from slimcv.run import JOURNAL, Run

IDENTITY = {"model": "abc", "seed": 0}


def record(number, outcome="accepted"):
    figures = Measurement(10, 2, 100, latency_ms=Latency(1.0, 1.1, None, 50, 0.02), top1=90.0)
    return Record(number, number, "fuse_conv_bn", outcome, "1.2× the speed before", 1.5, measurement=figures)


def opened(folder, **identity):
    return Run.open(folder / "out", identity={**IDENTITY, **identity})


def test_a_new_run_has_nothing_to_replay(tmp_path):
    with opened(tmp_path) as run:
        assert not run.resumed
        assert run.replay() is None


def test_records_are_replayed_in_order_exactly_as_committed(tmp_path):
    with opened(tmp_path) as run:
        for number in range(3):
            run.commit(record(number))
    with opened(tmp_path) as again:
        assert again.resumed
        assert [again.replay() for _ in range(4)] == [record(0), record(1), record(2), None]


def test_a_torn_last_line_is_dropped_and_the_journal_goes_on_whole(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
    with (tmp_path / "out" / JOURNAL).open("a") as journal:
        journal.write('{"record": {"number": 1, "ent')
    with opened(tmp_path) as again:
        assert again.replay() == record(0)
        assert again.replay() is None
        again.commit(record(1))
    lines = (tmp_path / "out" / JOURNAL).read_text().splitlines()
    assert [json.loads(line)["record"]["number"] for line in lines[1:]] == [0, 1]


def test_a_folder_of_another_run_is_refused_and_says_what_differs(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
    with pytest.raises(SlimcvError, match="another seed") as caught:
        opened(tmp_path, seed=1)
    assert "--overwrite" in caught.value.hint
    with opened(tmp_path) as again:
        assert again.replay() == record(0)


def test_overwrite_starts_anew_and_leaves_foreign_files_alone(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with Run.open(tmp_path / "out", identity={**IDENTITY, "seed": 1}, overwrite=True) as run:
        assert not run.resumed
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    with opened(tmp_path, seed=1) as again:
        assert again.replay() is None


def test_a_folder_with_other_files_is_refused_untouched(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(SlimcvError, match="not empty"):
            Run.open(tmp_path, identity=IDENTITY, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_journal_of_something_else_is_refused_untouched(tmp_path):
    (tmp_path / JOURNAL).write_text('{"day": 1}\n')
    for overwrite in (False, True):
        with pytest.raises(SlimcvError, match="holds no run"):
            Run.open(tmp_path, identity=IDENTITY, overwrite=overwrite)
    assert (tmp_path / JOURNAL).read_text() == '{"day": 1}\n'


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SlimcvError, match="cannot be written"):
        Run.open(tmp_path / "file" / "out", identity=IDENTITY)


def test_state_is_remembered_across_processes_until_the_run_is_finished(tmp_path):
    with opened(tmp_path) as run:
        assert run.recall("original") is None
        run.remember("original", {"top1": 95.0})
    with opened(tmp_path) as again:
        assert again.recall("original") == {"top1": 95.0}
        again.finish()
    assert not (tmp_path / "out" / "work").exists()


def test_a_run_that_ends_without_its_checkpoints_says_so_when_it_is_opened_again(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
        (tmp_path / "out" / "checkpoints").mkdir()
        run.finish()
    with opened(tmp_path) as again:
        assert not again.finished, "its checkpoints were kept, so that it can be gone on with"
        again.finish(keep_checkpoints=False)
    assert not (tmp_path / "out" / "checkpoints").exists()
    with opened(tmp_path) as known:
        assert known.finished
        assert known.replay() is not None
        known.finish(keep_checkpoints=False)
    assert (tmp_path / "out" / JOURNAL).read_text().count("finished") == 1
    with Run.open(tmp_path / "out", identity=IDENTITY, overwrite=True) as anew:
        assert not anew.finished


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_use_is_refused_until_it_is_free(overwrite, tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
        with pytest.raises(SlimcvError, match="another slimcv is working in this folder"):
            Run.open(tmp_path / "out", identity=IDENTITY, overwrite=overwrite)
        run.commit(record(1))
    with opened(tmp_path) as again:
        assert [again.replay(), again.replay()] == [record(0), record(1)]


def test_a_refused_folder_is_not_held(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
    with pytest.raises(SlimcvError, match="another seed") as caught:
        opened(tmp_path, seed=1)
    with opened(tmp_path):
        assert caught.value.exit_code == 2


def test_a_file_system_without_locks_is_worked_on_all_the_same(tmp_path, monkeypatch):
    def refuse(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with opened(tmp_path) as run:
        run.commit(record(0))
        assert (tmp_path / "out" / JOURNAL).read_text().count("record") == 1


def test_the_time_of_interrupted_processes_counts(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
    told(tmp_path, seconds=100.0)
    with opened(tmp_path) as again:
        assert 100 <= again.seconds < 150
    with opened(tmp_path) as third:
        assert third.seconds > 100, "an orderly end tells the time too"


def test_what_a_killed_process_spent_on_a_record_is_told_by_it(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
    told(tmp_path, seconds=100.0)
    with opened(tmp_path) as again:
        assert again.replay() == record(0)
        committed = again.commit(record(1))
        assert 100 <= record(0).seconds + committed.seconds < 150
        assert again.commit(record(2)) == record(2), "once"
    with opened(tmp_path) as third:
        assert [third.replay() for _ in range(3)] == [record(0), committed, record(2)]


def test_a_killed_process_is_known_to_have_worked_until_its_last_file(tmp_path):
    with opened(tmp_path) as run:
        workdir = run.workdir
    told(tmp_path, seconds=100.0)
    (workdir / "state").write_text("an epoch later")
    moment = (workdir / "clock.json").stat().st_mtime
    os.utime(workdir / "state", (moment + 60, moment + 60))
    with opened(tmp_path) as again:
        assert 160 <= again.seconds < 210


def test_without_a_clock_the_journal_tells_the_time(tmp_path):
    with opened(tmp_path) as run:
        run.commit(record(0))
        run.commit(record(1))
        run.finish()
    with opened(tmp_path) as again:
        assert 3.0 <= again.seconds < 50


def told(folder, *, seconds):
    """The time as a process left it that worked longer than a test may."""
    (folder / "out" / "work" / "clock.json").write_text(json.dumps({"seconds": seconds}))
