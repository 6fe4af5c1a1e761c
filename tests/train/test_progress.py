"""How often a running state is told, and what is said but once."""

import logging
import time

from slimcv.train.progress import Progress, Remarks


def test_states_stay_every_few_seconds_and_are_redrawn_in_between(monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    progress = Progress(at_once=True)
    with caplog.at_level("DEBUG", logger="slimcv"):
        for tenth in range(103):
            now[0] = 100 + tenth / 10
            progress.tell(f"{tenth}")
    lasting = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert [int(text) // 50 for text in lasting] == [0, 1, 2]
    assert 30 <= len(caplog.records) <= 55
    assert all(record.live for record in caplog.records)


def test_what_is_over_at_once_is_not_told(caplog):
    with caplog.at_level("DEBUG", logger="slimcv"):
        Progress().tell("soon over")
    assert not caplog.records


def test_a_remark_is_made_once_also_after_an_interruption(caplog):
    remarks = Remarks([])
    for _ in range(2):
        remarks.add("it does not fit")
    again = Remarks(remarks.lines)
    again.add("it does not fit")
    assert again.lines == ["it does not fit"]
    assert caplog.text.count("it does not fit") == 1
