"""The training loss against its definition."""

import pytest
import torch
from torch.nn import functional

from slimcv.train.objective import loss
from slimcv.train.settings import FinetuneSettings


def test_it_is_the_weighted_sum_of_divergence_and_cross_entropy():
    logits, taught, labels = torch.randn(4, 5), torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    found = loss(logits, labels, taught, FinetuneSettings(distill=0.7, temperature=3, label_smoothing=0.1))
    teacher, student = (taught / 3).softmax(1), (logits / 3).softmax(1)
    divergence = (teacher * (teacher / student).log()).sum(1).mean()
    labelled = functional.cross_entropy(logits, labels, label_smoothing=0.1)
    assert found == pytest.approx(float(0.7 * 9 * divergence + 0.3 * labelled), rel=1e-5)


def test_a_student_that_says_what_the_teacher_says_has_no_loss():
    logits = torch.randn(4, 5)
    assert float(loss(logits, torch.zeros(4).long(), logits, FinetuneSettings(distill=1))) == pytest.approx(
        0, abs=1e-6
    )


def test_without_a_teacher_the_labels_count_in_full():
    logits, labels = torch.randn(4, 5), torch.tensor([0, 1, 2, 3])
    assert loss(logits, labels, None, FinetuneSettings(distill=0.7)) == functional.cross_entropy(
        logits, labels
    )
