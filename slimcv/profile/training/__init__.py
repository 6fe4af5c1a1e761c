"""What a training step is made of on this machine, and what makes it slow: `slimcv profile --training`."""

from __future__ import annotations

from time import perf_counter

import torch
from torch.fx import GraphModule

from slimcv.data import Dataset
from slimcv.errors import SlimcvError
from slimcv.measure import allocator, memory, room
from slimcv.models import capture
from slimcv.profile.training import findings as parts
from slimcv.profile.training import sample as sampling
from slimcv.profile.training.advice import advise
from slimcv.profile.training.bench import Bench, Steps
from slimcv.profile.training.findings import BackwardKind, Part, Teacher, TrainingProfile, Tried
from slimcv.profile.training.sample import Sample
from slimcv.step import Context, Variant
from slimcv.train import asking
from slimcv.train import precision as precisions
from slimcv.train.feed import augmentation
from slimcv.train.loop import as_in_training
from slimcv.train.settings import FinetuneSettings

__all__ = ["TrainingProfile", "profile_training"]

SECONDS = 20.0
"""What measuring may take where a network lets it; loading and decoding come on top."""

PROBE_MS = 150.0
"""Gradients are compared on as many pictures as take so long, fewer than a batch for a large network."""

SLOWEST_STEP_MS = 4000.0
"""Where a whole batch would take longer, smaller ones are measured."""

SHARE_OF_FREE_MEMORY = 0.7

RUNS = 3
"""Gradients by which a batch is judged, of which the first does not count."""

CHANGES = ("crop", "shift", "colour")
"""The random changes of pictures that are switched off one by one; mirroring costs next to nothing."""


def profile_training(
    variant: Variant,
    context: Context,
    *,
    settings: FinetuneSettings,
    name: str = "model",
    seconds: float = SECONDS,
) -> TrainingProfile:
    """Take a few training steps of a copy of `variant` as `settings` say and time what they are made of.

    The training pictures and the teacher are those of `context`. Only a few pictures are decoded, into a
    cache of their own. Where there is time, other ways are tried: contiguous tensors, the allocator as it is,
    half and twice the batch, random changes switched off. Afterwards the allocator is tuned, which cannot be
    undone. Raises SlimcvError where there are no pictures, or where the variant is an INT8 graph.
    """
    data = _data(variant, context)
    ends = perf_counter() + seconds
    batch = min(settings.batch_pictures, len(data.train))
    with as_in_training(context.train_threads):
        sample = sampling.take(data.train, variant.input, most=2 * batch)
        bench = Bench(
            _private(variant.model), sample.split, variant.input, settings, classes=len(data.classes)
        )
        return _Profiling(variant, context, data, settings, sample, bench, ends).profile(name, batch)


class _Profiling:
    """The measurements of one profile in their order: the allocator can be tuned once only."""

    def __init__(
        self,
        variant: Variant,
        context: Context,
        data: Dataset,
        settings: FinetuneSettings,
        sample: Sample,
        bench: Bench,
        ends: float,
    ) -> None:
        self._variant, self._context, self._data, self._settings = variant, context, data, settings
        self._sample, self._bench, self._ends = sample, bench, ends
        self._tried: list[Tried] = []
        self._remarks: list[str] = []

    def profile(self, name: str, asked: int) -> TrainingProfile:
        """Measure everything."""
        bench, sample, data, threads = self._bench, self._sample, self._data, self._context.train_threads
        if self._settings.compile:
            self._remarks.append("measured without compile, which takes longer than a profile may")
        before = memory.resident()
        probe = self._probe(asked)
        bench.precision = precisions.choose(self._private_copy(), bench.batch(probe), self._settings)
        as_is_ms = min(bench.gradient_ms(probe) for _ in range(RUNS - 1))
        tuned = allocator.tune()
        bench.gradient_ms(probe)
        memory_of_probe = memory.reset_peak()
        probe_ms = min(bench.gradient_ms(probe) for _ in range(RUNS - 1))
        bytes_each = (memory.peak() - before) / probe if memory_of_probe else 0.0
        if tuned:
            self._try("allocator as it is", as_is_ms / probe, probe_ms / probe)
        batch = self._affordable(min(asked, len(sample.split)), probe_ms / probe, bytes_each)
        peak_known = memory.reset_peak()
        steps = bench.steps(batch, seconds=0.4 * self._left())
        peak = memory.peak() if peak_known else 0
        read_ms = min(sample.read_ms(self._variant.input, batch), steps.feed_ms)
        formats = bench.formats(probe, seconds=0.1 * self._left())
        self._try("contiguous", formats.ms("contiguous") / probe, formats.ms("channels_last") / probe)
        backward = bench.backward(probe)
        self._without_changes(batch, steps)
        self._other_batches(batch, steps, bytes_each)
        table = _parts(steps, read_ms, sample.decode_ms_each * batch)
        step_ms = sum(part.ms for part in table)
        first_ms = sum(part.first_ms for part in table)
        pictures = len(data.train)
        found = TrainingProfile(
            model={"name": name, "input": str(self._variant.input), "classes": len(data.classes)},
            pictures=pictures,
            batch=batch,
            asked_batch=self._settings.batch_pictures,
            steps=steps.count,
            threads=threads,
            precision=bench.precision,
            parts=table,
            step_ms=step_ms,
            images_per_second=1000 * batch / step_ms,
            busy_threads=steps.busy_threads,
            epoch_seconds=1e-3 * step_ms * pictures / batch,
            first_epoch_seconds=1e-3 * first_ms * pictures / batch,
            decode_ms_each=sample.decode_ms_each,
            teacher=self._teacher(step_ms / batch, batch),
            peak_rss_bytes=peak or None,
            trained_bytes=max(0, peak - before) if peak else None,
            backward=_kinds(backward),
            tried=tuple(self._tried),
            advice=(),
            remarks=tuple(self._remarks),
        )
        return advise(found, self._settings)

    def _probe(self, most: int) -> int:
        """How many pictures a gradient is computed of to compare ways of doing it; leaves all warm."""
        most = min(most, len(self._sample.split))
        count = min(2, most)
        while self._bench.gradient_ms(count) < PROBE_MS and count < most:
            count = min(2 * count, most)
        self._bench.gradient_ms(count)
        return count

    def _affordable(self, batch: int, ms_each: float, bytes_each: float) -> int:
        """The batch, or the largest of its halves that is neither too slow to be timed nor too large.

        Never one picture: a BatchNorm refuses to be trained on one value a channel.
        """
        found = batch
        while found > 2 and found * ms_each > SLOWEST_STEP_MS:
            found = max(2, found // 2)
        if found < batch:
            seconds = 1e-3 * ms_each * batch
            self._remarks.append(
                f"measured in batches of {found}: one of {batch} would take about {seconds:.0f} s"
            )
        fits = found
        while fits > 2 and not _fits(fits * bytes_each):
            fits = max(2, fits // 2)
        if fits < found:
            self._remarks.append(f"measured in batches of {fits}: there is no memory for {found}")
        return fits

    def _without_changes(self, batch: int, steps: Steps) -> None:
        """The random changes that are on, each switched off."""
        on = [change for change in CHANGES if getattr(self._settings, change)]
        as_is = self._bench.feed_ms(batch) if on else 0.0
        rest = steps.forward_ms + steps.backward_ms + steps.around_ms
        for change in on:
            without = self._bench.feed_ms(batch, without=change)
            self._try(f"{change} off", (rest + without) / batch, (rest + as_is) / batch)

    def _teacher(self, student_ms_each: float, batch: int) -> Teacher | None:
        """Asked live under the same conditions as slimcv.train.teaching has, for training without a limit."""
        settings = self._settings
        if settings.distill == 0.0:
            return None
        form = asking.fastest(self._context, self._sample.split, pictures=0)
        views = len(augmentation(settings).flips)
        ms_each = 1000 * form.seconds_each
        changed = any(getattr(settings, change) for change in CHANGES)
        live = settings.teacher == "live" or (
            settings.teacher == "auto" and changed and ms_each <= student_ms_each
        )
        return Teacher(
            how="live" if live else "cached",
            form=form.name,
            ms_each=ms_each,
            views=views,
            once_seconds=form.seconds_each * views * len(self._data.train),
            live_step_ms=ms_each * batch,
        )

    def _other_batches(self, batch: int, steps: Steps, bytes_each: float) -> None:
        """Twice and half as many pictures a step, where there are as many, room for them and time."""
        wanted = [2 * batch, batch // 2]
        possible = [n for n in wanted if 2 <= n <= len(self._sample.split) and _fits(n * bytes_each)]
        gradient_each = 1e-3 * (steps.forward_ms + steps.backward_ms) / batch
        tried: list[int] = []
        for count in possible:
            if RUNS * gradient_each * (batch + count + sum(tried)) <= self._left():
                tried.append(count)
        if len(tried) < len(possible):
            left_out = " and ".join(str(count) for count in possible if count not in tried)
            self._remarks.append(f"batches of {left_out} were not tried: there was no time left")
        each = {count: self._whole_ms_each(count, batch, steps) for count in (batch, *tried) if tried}
        for count in tried:
            self._try(f"batch {count}", each[count], each[batch])

    def _whole_ms_each(self, count: int, batch: int, steps: Steps) -> float:
        """Milliseconds a picture in steps of `count`: a new gradient, and what was measured around it."""
        self._bench.gradient_ms(count)
        gradient_ms = min(self._bench.gradient_ms(count) for _ in range(RUNS - 1))
        return (gradient_ms + steps.around_ms) / count + steps.feed_ms / batch

    def _try(self, name: str, ms_each: float, as_is_ms_each: float) -> None:
        self._tried.append(Tried(name, ms_each, as_is_ms_each))

    def _private_copy(self) -> GraphModule:
        return _private(self._variant.model)

    def _left(self) -> float:
        return max(0.0, self._ends - perf_counter())


def _data(variant: Variant, context: Context) -> Dataset:
    if context.data is None:
        raise SlimcvError("profiling the training needs pictures", "give them with --data DIR")
    if variant.precision == "int8":
        raise SlimcvError("an INT8 graph cannot be trained", "profile the network it was made from")
    if len(context.data.train) < 2:
        raise SlimcvError(f"{len(context.data.train)} training pictures are too few", "give two or more")
    if not any(parameter.numel() for parameter in variant.model.parameters()):
        raise SlimcvError("the model has no parameters to train", "profile it without --training")
    return context.data


def _private(model: GraphModule) -> GraphModule:
    """A copy to train, nothing frozen, in channels_last as slimcv.train has it."""
    own = capture.copy(model)
    own.requires_grad_(True)
    own.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return own


def _parts(steps: Steps, read_ms: float, decode_ms: float) -> tuple[Part, ...]:
    later = {
        parts.DECODE: read_ms,
        parts.AUGMENT: steps.feed_ms - read_ms,
        parts.FORWARD: steps.forward_ms,
        parts.BACKWARD: steps.backward_ms,
        parts.OPTIMIZER: steps.optimizer_ms,
        parts.WAITING: steps.waiting_ms,
    }
    first = {**later, parts.DECODE: read_ms + decode_ms}
    whole, whole_first = sum(later.values()), sum(first.values())
    return tuple(
        Part(name, ms, ms / whole, first[name], first[name] / whole_first) for name, ms in later.items()
    )


def _kinds(spent: dict[str, float]) -> tuple[BackwardKind, ...]:
    whole = sum(spent.values())
    return tuple(BackwardKind(kind, ms, ms / whole) for kind, ms in spent.items())


def _fits(size_bytes: float) -> bool:
    """Whether so much more memory is free, on the machine and within the container's limit."""
    free = room.free_bytes()
    return free is None or size_bytes <= SHARE_OF_FREE_MEMORY * free
