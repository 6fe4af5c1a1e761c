"""Few values for many weights: at most as many as asked for, the means of what they stand for, zeros kept."""

import pytest
import torch

from slimcv.surgery import sharing


def weight(rows=32, columns=144):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("initial", ["density", "linear", "kmeans++"])
@pytest.mark.parametrize("count", [2, 16, 200])
def test_there_are_at_most_so_many_values_and_each_is_the_mean_of_its_weights(initial, count):
    before, after = weight(), weight()
    assert sharing.share(after, count, initial=initial, keep_zeros=True, seed=0)
    values, index = after.unique(return_inverse=True)
    assert count // 2 <= len(values) <= count
    means = torch.stack([before[index == at].mean() for at in range(len(values))])
    torch.testing.assert_close(means, values, rtol=0, atol=1e-3)
    nearest = (before.reshape(-1, 1) - values).abs().argmin(dim=1).view_as(index)
    assert (nearest == index).float().mean() > 0.999


@pytest.mark.parametrize("initial", ["density", "linear", "kmeans++"])
def test_the_error_is_that_of_a_good_quantiser(initial):
    """Lloyd and Max: 16 levels leave 0.0095 of a normal distribution's variance."""
    before, after = weight(200, 500), weight(200, 500)
    sharing.share(after, 16, initial=initial, keep_zeros=True, seed=0)
    assert float((after - before).square().mean()) < 0.0105


def test_zeros_stay_zero_and_count_as_one_of_the_values():
    before = weight()
    before[before.abs() < 0.7] = 0.0
    after = before.clone()
    sharing.share(after, 8, initial="density", keep_zeros=True, seed=0)
    assert torch.equal(after == 0, before == 0)
    assert len(after.unique()) <= 8


def test_a_tensor_too_small_for_so_many_values_is_left_alone():
    after = weight(4, 4)
    assert not sharing.share(after, 5, initial="density", keep_zeros=True, seed=0)
    assert torch.equal(after, weight(4, 4))


def test_shared_values_are_told_from_ordinary_weights():
    ordinary, together, each = weight(), weight(), weight()
    sharing.share(together, 64, initial="density", keep_zeros=False, seed=0)
    for row in each:
        sharing.share(row, 16, initial="density", keep_zeros=False, seed=0)
    assert [sharing.is_shared(one) for one in (ordinary, together, each)] == [False, True, True]
    assert not sharing.is_shared(weight(64, 4096).bfloat16().float())
    assert not sharing.is_shared(weight(512, 4096).half().float())
