"""Batches are normalised alike with and without torch, complete, and in an order a seed decides."""

import numpy as np
import pytest
import torch

from slimcv.data.batches import batches, epoch_generator, epoch_order, gather, normalise
from slimcv.data.normalisation import normalised
from slimcv.step import InputSpec

INPUT = InputSpec(3, 6, 5)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation(pixels):
    expected = (pixels / 255.0 - np.array(INPUT.mean)) / np.array(INPUT.std)
    found = normalise(torch.from_numpy(pixels), INPUT)
    assert found.dtype == torch.float32
    assert found.shape == (7, 3, 6, 5)
    assert found.is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), atol=2e-6)


def test_torch_and_numpy_normalise_to_the_same_bits(pixels):
    assert np.array_equal(normalise(torch.from_numpy(pixels), INPUT).numpy(), normalised(pixels, INPUT))


def test_normalising_leaves_its_input_alone(pixels):
    for given in (torch.from_numpy(pixels), torch.from_numpy(pixels).float()):
        before = given.clone()
        normalise(given, INPUT)
        assert torch.equal(given, before)


def test_batches_hold_every_picture_once_with_its_label(pixels):
    labels = np.arange(7, dtype=np.int64) * 10
    found = list(batches(pixels, labels, INPUT, batch_size=3))
    assert [len(x) for x, _, _ in found] == [3, 3, 1]
    assert torch.cat([index for _, _, index in found]).tolist() == list(range(7))
    assert torch.cat([label for _, label, _ in found]).tolist() == labels.tolist()
    assert np.array_equal(torch.cat([x for x, _, _ in found]).numpy(), normalised(pixels, INPUT))


def test_batches_follow_the_order_given(pixels):
    order = np.array([4, 1, 6])
    ((x, labels, index),) = batches(pixels, np.arange(7), INPUT, batch_size=8, order=order)
    assert index.tolist() == labels.tolist() == [4, 1, 6]
    assert np.array_equal(x.numpy(), normalised(pixels[order], INPUT))


def test_gathering_from_a_read_only_map_gives_a_copy(pixels, tmp_path):
    np.save(tmp_path / "p.npy", pixels)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    found = gather(mapped, np.array([2, 0]))
    found.zero_()
    assert np.array_equal(mapped, pixels)


def test_an_epochs_order_and_random_numbers_are_decided_by_seed_and_epoch():
    assert sorted(epoch_order(50, seed=1, epoch=2)) == list(range(50))
    orders = {
        (seed, epoch): tuple(epoch_order(50, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(set(orders.values())) == 4
    assert orders[1, 0] == tuple(epoch_order(50, seed=1, epoch=0))
    draws = [torch.rand(3, generator=epoch_generator(seed=3, epoch=epoch)).tolist() for epoch in (4, 4, 5)]
    assert draws[0] == draws[1] != draws[2]
