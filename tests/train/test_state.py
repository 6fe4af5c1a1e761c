"""The state of a training on disk."""

import resource

import pytest
import torch

from slimcv.errors import SlimcvError
from slimcv.train import state as states
from slimcv.train.progress import Remarks
from slimcv.train.state import Keeper, State

STATE = State({"model/a": torch.arange(6.0).reshape(2, 3), "best/a": torch.ones(())}, {"epoch": 3})


def test_what_was_written_is_read_back(tmp_path):
    tied = torch.randn(3, 4)
    given = State({"a": tied, "b": tied, "c": tied.t(), "d": tied[1]}, {"lowest_loss": float("inf")})
    states.write(tmp_path, given)
    read = states.read(tmp_path)
    assert read.values == given.values
    assert all(torch.equal(read.tensors[name], value) for name, value in given.tensors.items())
    assert set(STATE.part("model")) == {"a"}


def test_a_full_disk_leaves_the_state_before_and_nothing_else(tmp_path):
    states.write(tmp_path, STATE)
    large = State({"a": torch.zeros(100_000)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(SlimcvError, match="cannot write") as caught:
            states.write(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.disk_fault
    assert states.read(tmp_path).values == {"epoch": 3}
    assert [path.name for path in tmp_path.iterdir()] == [states.FILE]


def test_a_folder_that_cannot_be_made_is_remarked_on_and_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    remarks = Remarks([])
    keeper = Keeper(tmp_path / "file" / "training", 1e-9, remarks)
    for _ in range(3):
        assert keeper.due
        keeper.write(STATE)
    (remark,) = remarks.lines
    assert "the training goes on" in remark
    assert states.read(tmp_path / "file" / "training") is None


def test_what_a_killed_process_left_half_written_is_removed(tmp_path):
    states.write(tmp_path, STATE)
    for name in (".tmpABC", f"{states.FILE}.77.partial"):
        (tmp_path / name).write_bytes(b"half")
    states.tidy(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [states.FILE]
    states.tidy(tmp_path / "missing")
