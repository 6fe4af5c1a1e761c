"""What is minimised: the distance to the teacher's softened answers and to the labels."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from slimcv.train.settings import FinetuneSettings


def loss(logits: Tensor, labels: Tensor, taught: Tensor | None, settings: FinetuneSettings) -> Tensor:
    """The mean over a batch of `distill · T² · KL(teacher ‖ student) + (1 - distill) · cross-entropy`.

    `logits` and the teacher's `taught` are (n, classes), both divided by the temperature T for the first
    term; T² keeps its gradient as large as that of the second (Hinton et al. 2015, "Distilling the Knowledge
    in a Neural Network"). Without `taught` it is the cross-entropy alone.
    """
    logits = logits.float()
    if taught is None or settings.distill == 0.0:
        return functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
    heat = settings.temperature
    student = functional.log_softmax(logits / heat, dim=1)
    teacher = functional.log_softmax(taught / heat, dim=1)
    total = functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * (
        settings.distill * heat * heat
    )
    if settings.distill < 1.0:
        labelled = functional.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)
        total = total + (1.0 - settings.distill) * labelled
    return total
