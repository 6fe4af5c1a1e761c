"""The split is by name, stratified, and stays where it is."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from slimcv.data.splitting import kept_aside, mixed

sets = st.lists(
    st.tuples(st.text(max_size=8), st.integers(0, 4)), max_size=60, unique_by=lambda pair: pair[0]
)
fractions = st.sampled_from([0.1, 0.2, 0.5])


def aside(pairs, fraction=0.2, seed=0, purpose="val"):
    keys, labels = [key for key, _ in pairs], [label for _, label in pairs]
    mask = kept_aside(keys, labels, fraction=fraction, seed=seed, purpose=purpose)
    return {pair for pair, chosen in zip(pairs, mask, strict=True) if chosen}


@settings(deadline=None, max_examples=50)
@given(sets, fractions, st.integers(0, 2**32))
def test_every_class_of_two_or_more_stands_on_both_sides(pairs, fraction, seed):
    chosen = aside(pairs, fraction, seed)
    for label in range(5):
        whole = {pair for pair in pairs if pair[1] == label}
        assert 1 <= len(chosen & whole) < len(whole) if len(whole) > 1 else not chosen & whole
        if len(whole) >= 10:
            assert abs(len(chosen & whole) - fraction * len(whole)) <= 0.5


@settings(deadline=None, max_examples=50)
@given(sets, st.randoms())
def test_the_order_of_listing_does_not_matter(pairs, random):
    shuffled = random.sample(pairs, len(pairs))
    assert aside(shuffled) == aside(pairs)


@settings(deadline=None, max_examples=50)
@given(sets, st.text(min_size=9, max_size=12), st.integers(0, 4))
def test_a_new_picture_leaves_other_classes_alone_and_moves_at_most_one_of_its_own(pairs, key, label):
    before, after = aside(pairs), aside([*pairs, (key, label)])
    moved = (before ^ after) - {(key, label)}
    assert len(moved) <= 1
    assert all(pair[1] == label for pair in moved)


def test_seed_and_purpose_each_give_another_split():
    pairs = [(f"{index}.jpg", 0) for index in range(100)]
    assert len({frozenset(aside(pairs, seed=seed)) for seed in range(5)}) == 5
    assert aside(pairs, purpose="tuning") != aside(pairs)


def test_the_split_is_the_same_on_every_machine():
    mask = kept_aside(
        [f"{index}.jpg" for index in range(12)], np.zeros(12), fraction=0.25, seed=7, purpose="val"
    )
    assert mask.nonzero()[0].tolist() == [3, 10, 11]


def test_the_first_of_a_mixed_order_are_a_fair_sample():
    order = mixed([f"{label}/{index}" for label in range(4) for index in range(250)])
    assert sorted(order) == list(range(1000))
    counts = np.bincount([index // 250 for index in order[:200]])
    assert counts.min() > 30
