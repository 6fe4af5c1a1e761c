"""Magnitude pruning: exactly as many zeros as asked for, in the pattern asked for, the smallest weights."""

import pytest
import torch

from slimcv.surgery import magnitude


def weights():
    random = torch.Generator().manual_seed(0)
    shapes = ((8, 4, 3, 3), (16, 8, 3, 3), (10, 64))
    return [
        torch.randn(shape, generator=random) * scale
        for shape, scale in zip(shapes, (1, 1.5, 0.8), strict=True)
    ]


def zeros(tensors):
    return sum(int((tensor == 0).sum()) for tensor in tensors)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_the_smallest_of_all_layers_go_and_no_others(share):
    before, after = weights(), weights()
    magnitude.prune(after, share=share, block=(1, 1), together=True)
    total = sum(weight.numel() for weight in before)
    assert zeros(after) == round(share * total)
    gone = torch.cat([was[now == 0].abs() for was, now in zip(before, after, strict=True)])
    left = torch.cat([now[now != 0].abs() for now in after])
    assert gone.max() <= left.min()


def test_every_layer_loses_the_same_share_where_they_are_taken_alone():
    after = weights()
    magnitude.prune(after, share=0.75, block=(1, 1), together=False)
    assert [zeros([weight]) for weight in after] == [round(0.75 * weight.numel()) for weight in after]


def test_no_layer_dies():
    after = [torch.full((4, 4), 1e-6), torch.ones(4, 4)]
    magnitude.prune(after, share=0.9, block=(1, 1), together=True)
    assert zeros(after) == round(0.9 * 32)
    assert all(zeros([weight]) < weight.numel() for weight in after)


@pytest.mark.parametrize("group", [4, 3])
def test_of_every_group_of_neighbouring_inputs_as_many_go_as_asked_for(group):
    after = weights()
    magnitude.thin(after, group=group, dropped=2)
    for weight in after:
        inputs = weight.movedim(1, -1).flatten(0, -2)
        whole = inputs.shape[1] - inputs.shape[1] % group
        groups = inputs[:, :whole].reshape(-1, group)
        assert ((groups == 0).sum(dim=1) == 2).all(), "of the same position of neighbouring inputs"
        assert int((inputs[:, whole:] == 0).sum()) == 0


@pytest.mark.parametrize("block", [(1, 4), (2, 2), (3, 5)])
def test_blocks_go_as_a_whole(block):
    before, after = weights(), weights()
    magnitude.prune(after, share=0.5, block=block, together=True)
    blocks = gone = 0
    for weight in after:
        matrix = weight.movedim(1, -1).flatten(1)
        for rows in matrix.split(block[0]):
            for part in rows.split(block[1], dim=1):
                blocks += 1
                gone += bool((part == 0).all())
                assert bool((part == 0).all()) or bool((part != 0).all())
    assert gone == round(0.5 * blocks)
    assert all(torch.equal(now[now != 0], was[now != 0]) for was, now in zip(before, after, strict=True))


def test_what_is_zero_counts_so_that_pruning_again_changes_nothing():
    once, twice = weights(), weights()
    magnitude.prune(once, share=0.6, block=(1, 1), together=True)
    magnitude.prune(twice, share=0.4, block=(1, 1), together=True)
    magnitude.prune(twice, share=0.6, block=(1, 1), together=True)
    assert all(map(torch.equal, once, twice))
    magnitude.prune(twice, share=0.6, block=(1, 1), together=True)
    assert all(map(torch.equal, once, twice))
    assert magnitude.sparsity(once) == pytest.approx(0.6, abs=1e-3)
