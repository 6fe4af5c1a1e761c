"""What every process but rank 0 does: hear an order, do its share of the work, hear the next."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.fx import GraphModule

from slimcv.data import Dataset
from slimcv.data.batches import gather
from slimcv.errors import SlimcvError
from slimcv.models import capture
from slimcv.step import Context
from slimcv.train import asking, loop, pruning, teacher
from slimcv.train import state as states
from slimcv.train.asking import Form
from slimcv.train.average import restore, snapshot
from slimcv.train.descent import Descent
from slimcv.train.evaluation import evaluate
from slimcv.train.feed import NETWORK, Batch, Feed, augmentation, step_seed
from slimcv.train.live import Live
from slimcv.train.optimizer import by_name
from slimcv.train.processes import agreement
from slimcv.train.processes.agreement import Opening
from slimcv.train.processes.group import Group, Order
from slimcv.train.progress import Remarks
from slimcv.train.state import State
from slimcv.train.teacher import Targets


def follow(group: Group, read: Callable[[Opening], Dataset]) -> None:
    """Do what rank 0 says until it lets go; `read` gives this process's own copy of the pictures."""
    opening = agreement.hear(group)
    if opening.source is None:
        group.awaited()  # Without pictures there is one order that can come: to leave.
        return
    data = read(opening)
    agreement.agree(group, data)
    original = agreement.receive_variant(group)
    with tempfile.TemporaryDirectory(prefix="slimcv-") as folder:
        context = Context(
            teacher=original,
            data=data,
            workdir=Path(folder),
            threads=group.threads,
            train_threads=group.threads,
            seed=opening.seed,
            processes=group,
        )
        Follower(group, context, data).obey()


class Follower:
    """A process that has the pictures and the teacher, and waits for something to do."""

    def __init__(self, group: Group, context: Context, data: Dataset) -> None:
        self._group, self._context, self._data = group, context, data
        self._forms: dict[str, Form] = {}

    def obey(self) -> None:
        """Follow order after order until rank 0 lets go."""
        while True:
            order, numbers = self._group.awaited()
            if order is Order.LEAVE:
                return
            if order is Order.ASK:
                form, view, start, stop = (int(number) for number in numbers[:4])
                self._ask(self._form(asking.FORMS[form]), view, np.arange(start, stop))
            elif order is Order.TRAIN:
                self._train(states.unpacked(self._group.receive()))

    def _ask(self, form: Form, view: int, index: np.ndarray) -> None:
        with loop.tuned_for_training(self._context.train_threads, Remarks([])):
            pixels = asking.teacher_pixels(self._context, self._data.train)
            found = gather(pixels, self._group.part(index))
            teacher.together(self._context, form, found, len(index), view=view)

    def _train(self, lesson: State) -> None:
        with loop.tuned_for_training(self._context.train_threads, Remarks([])):
            pupil = Pupil(self._group, self._data, lesson, self._teaching(lesson))
            while True:
                order, numbers = self._group.awaited()
                if order is Order.REST:
                    return
                if order is Order.STEP:
                    epoch, step, rate, group, update, share = numbers
                    pupil.step(
                        int(epoch), int(step), rate=rate, group=int(group), update=bool(update), share=share
                    )
                elif order is Order.SCORE:
                    pupil.score(averaged=bool(numbers[0]))

    def _teaching(self, lesson: State) -> Targets | Live | None:
        targets = {int(view): logits.numpy() for view, logits in lesson.part("targets").items()}
        if targets:
            return Targets(targets, top1=0.0, seconds=0.0)
        if lesson.values["live"] is None:
            return None
        changes = augmentation(pruning.settings(lesson.values["settings"]))
        form = self._form(lesson.values["live"])
        same_size = self._context.teacher.input.shape == tuple(lesson.values["shape"])
        return Live(self._context, self._data.train, changes, form=form, same_size=same_size)

    def _form(self, name: str) -> Form:
        if name not in self._forms:
            self._forms[name] = asking.named(self._context, name)
        return self._forms[name]


class Pupil:
    """A copy of the network that is trained; after every update it is the same in all processes."""

    def __init__(
        self,
        group: Group,
        data: Dataset,
        lesson: State,
        teaching: Targets | Live | None,
    ) -> None:
        values = lesson.values
        settings = pruning.settings(values["settings"])
        variant = agreement.unpacked(lesson.tensors["student"].numpy().tobytes())
        self._group, self._data, self._input = group, data, variant.input
        self._model, self._seed = loop.private(variant.model), values["seed"]
        _refuse_other_parameters(self._model, values["names"])
        self._feed = Feed(
            data.train, self._input, settings, teaching=teaching, seed=self._seed, processes=group
        )
        forward = loop.compiled_if_asked(
            self._model, self._input, self._feed, settings, values["precision"], Remarks([])
        )
        self._descent = Descent(
            self._model, settings, precision=values["precision"], forward=forward, processes=group
        )
        if lesson.part("model"):
            self._descent.load(lesson)
        self._batches: Iterator[Batch] = iter(())
        self._next = (0, 0)
        self._training = False

    def step(self, epoch: int, step: int, *, rate: float, group: int, update: bool, share: float) -> None:
        """Take a step with the share of its pictures."""
        if (epoch, step) != self._next:
            self._batches = self._feed.epoch(epoch, first=step)
        self._next = (epoch, step + 1)
        if not self._training:
            capture.set_training(self._model, True)
            self._training = True
        torch.default_generator.manual_seed(
            step_seed(self._seed, epoch, step, stream=NETWORK, rank=self._group.rank)
        )
        self._descent.step(next(self._batches), rate=rate, group=group, update=update, share=share)

    def score(self, *, averaged: bool) -> None:
        """Judge a share of the tuning split by the weights, or by their running average."""
        self._training = False
        average = self._descent.average
        if not averaged or average is None:
            evaluate(self._model, self._data.tuning, self._input, processes=self._group)
            return
        own = snapshot(self._model)
        restore(self._model, average.weights)
        evaluate(self._model, self._data.tuning, self._input, processes=self._group)
        restore(self._model, own)


def _refuse_other_parameters(model: GraphModule, names: list[str]) -> None:
    """Gradients are added by position in the order of names, which must be those that rank 0 has."""
    if [*by_name(model)] != names:
        raise SlimcvError(
            "the network came with other parameters than it was sent",
            "report this as a bug of slimcv; the same command trains it in one process",
        )
