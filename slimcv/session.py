"""The loop: every entry of a recipe is applied to a private copy, measured, judged and journalled.

The head of a recipe (surgery, pruning, training) builds a chain of *proven* variants, each judged after
training on the tuning split, a part of train/ that fine-tuning never sees. Surgery that a later entry repairs
is judged there; if the repaired variant misses its gate, the last surgery is taken back and the repair is
tried without it. The tail (fusion, quantisation, export) then runs on the variant proven last; what comes out
is judged on val/ by the recipe's gate, and only if it misses do slower variants get their turn: INT8 with the
training that it seemed not to need, another quantisation of the recipe, floats, the variants proven before,
those with less surgery, and the original last.

The original has usually been trained on the pictures of the tuning split, a candidate never, so `max_drop` on
that split is pessimistic for candidates. That errs on the safe side; recipes leave it room, and val/ decides
in the end.

Where roads part (`either`), all are tried from the same variant, untrained, and the one whose form is fastest
goes on alone (see slimcv.crossroads).
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from slimcv.instruments import Held
from slimcv.recipe import Recipe
from slimcv.recipe.roads import on_course
from slimcv.results import Record
from slimcv.run import Run
from slimcv.step import Context, Stage, Step
from slimcv.workbench import Workbench


@dataclass(frozen=True)
class Proven:
    """A variant whose accuracy was judged after training by entry `at`.

    `surgeries` are the entries that training repaired, each with the variant from before it.
    """

    held: Held
    at: int
    surgeries: tuple[tuple[int, Held], ...]


def optimize(recipe: Recipe, context: Context, run: Run, *, quick: bool = False) -> Iterator[Record]:
    """Apply `recipe` to the original (`context.teacher`), yielding a record as each decision falls.

    The first record is the original itself (step `original`), the last one is a `ship` record. Records of an
    interrupted run are yielded again from its journal before new work starts. With `quick` the final
    measurement is short: fewer calls, and no runtimes beside those the recipe exports for.
    """
    if run.finished:
        while (known := run.replay()) is not None:
            yield known
        return
    bench = Workbench(recipe, context, run, quick=quick)
    record, original = bench.original()
    yield record
    proven = yield from _head(bench, original)
    yield from _ship_fastest(bench, original, proven)


def _head(bench: Workbench, original: Held) -> Generator[Record, None, list[Proven]]:
    """Surgery, pruning and training; the variants whose accuracy was judged, each built on the one before."""
    left = [(at, entry) for at, entry in enumerate(bench.recipe.entries) if entry.step.stage < Stage.FUSE]
    roads: dict[int, int] = {}
    proven: list[Proven] = []
    state = original
    pending: list[tuple[int, Held]] = []
    trained: Record | None = None
    while left:
        at, entry = left.pop(0)
        if entry.road is not None and entry.road.fork not in roads:
            roads[entry.road.fork], records = bench.choose(entry.road.fork, state)
            yield from records
            left = [(later, each) for later, each in left if on_course(each, roads)]
        if not on_course(entry, roads):
            continue
        repaired_later = not entry.trains and any(later.trains for _, later in left)
        record, candidate = bench.attempt(
            at, state, judged=not repaired_later, repairs=entry.trains and bool(pending)
        )
        yield record
        trained = record if entry.trains else trained
        if record.outcome == "rejected" and entry.trains and pending:
            retreated = yield from _retreat(bench, at, pending, because=record)
            candidate, state = (retreated.held if retreated else None), pending[0][1]
            pending = list(retreated.surgeries) if retreated else []
        if candidate is None:
            continue
        if repaired_later:
            pending.append((at, state))
        else:
            proven.append(Proven(candidate, at, tuple(pending)))
            pending = []
        state = candidate
    for taken, _ in reversed(pending):
        yield bench.take_back(taken, trained or record)
    return proven


def _retreat(
    bench: Workbench, at: int, surgeries: Sequence[tuple[int, Held]], *, because: Record
) -> Generator[Record, None, Proven | None]:
    """Take back surgery by surgery, the last first, until the training of entry `at` repairs the rest."""
    left = list(surgeries)
    while left:
        taken, state = left.pop()
        yield bench.take_back(taken, because)
        if not left and bench.recipe.entries[at].step.stage == Stage.TRAIN:
            return None  # Nothing is left to repair.
        because, candidate = bench.attempt(at, state, judged=True, repairs=bool(left))
        yield because
        if candidate is not None:
            return Proven(candidate, at, tuple(left))
    return None


def _ship_fastest(bench: Workbench, original: Held, proven: Sequence[Proven]) -> Iterator[Record]:
    """Ship the variant proven last, else an earlier one, else one with less surgery, else the original."""
    candidate = proven[-1] if proven else None
    earlier = list(proven[:-1])
    while candidate is not None:
        shipped = yield from _finish(bench, candidate.held, last_resort=False)
        if shipped.outcome == "accepted":
            return
        if shipped.details["accuracy_met"]:
            break  # Only speed or size was missed: what was changed less would be slower and larger still.
        if earlier:
            candidate = earlier.pop()
        else:
            candidate = yield from _retreat(bench, candidate.at, candidate.surgeries, because=shipped)
    yield from _finish(bench, original, last_resort=True)


def _finish(bench: Workbench, base: Held, *, last_resort: bool) -> Generator[Record, None, Record]:
    """Fusion, quantisation and export of `base`, judged on val/; in float too where INT8 misses the gate.

    INT8 whose training the tuning split did not ask for is trained first where val/ does, and what a recipe
    has in its place (weights alone in 8 bits) comes before floats. With `last_resort`
    the attempt in float keeps to lossless steps, and what is lossless is shipped whatever the gate says.
    There is no such attempt where the one before came out without what it leaves out.
    """
    tail = {at: entry.step for at, entry in enumerate(bench.recipe.entries) if entry.step.stage >= Stage.FUSE}
    gentle = {at for at, step in tail.items() if (step.lossless if last_resort else not step.quantizes)}
    made = yield from _apply_all(bench, base, list(tail))
    record = bench.ship(made.held, last_resort=last_resort and made.accepted <= gentle)
    yield record
    if _inaccurate(record) and made.untrained is not None:
        at, before = made.untrained
        left = [later for later in tail if later >= at]
        made = yield from _apply_all(bench, before, left, accepted=made.accepted - {*left}, train=True)
        record = bench.ship(made.held, last_resort=last_resort and made.accepted <= gentle)
        yield record
    others = _without_the_quantisation_taken(made, tail)
    if _inaccurate(record) and others:
        made = yield from _apply_all(bench, base, others)
        record = bench.ship(made.held, last_resort=last_resort and made.accepted <= gentle)
        yield record
    missed = _inaccurate(record) or (last_resort and record.outcome == "rejected")
    if missed and not made.accepted <= gentle:
        made = yield from _apply_all(bench, base, sorted(gentle))
        record = bench.ship(made.held, last_resort=last_resort)
        yield record
    return record


def _without_the_quantisation_taken(made: Made, tail: Mapping[int, Step]) -> list[int]:
    """The entries of a tail that quantise otherwise than was done; none where there is no other way."""
    ways = {at for at, step in tail.items() if step.stage == Stage.QUANTIZE and step.quantizes}
    taken = ways & made.accepted
    return [at for at in tail if at not in taken] if taken and ways - taken else []


def _inaccurate(shipped: Record) -> bool:
    return shipped.outcome == "rejected" and not shipped.details["accuracy_met"]


@dataclass(frozen=True)
class Made:
    """What the tail made, and the entries that were `accepted`.

    `untrained` is the entry whose training was not asked for, with the variant from before it.
    """

    held: Held
    accepted: frozenset[int]
    untrained: tuple[int, Held] | None


def _apply_all(
    bench: Workbench,
    state: Held,
    entries: Sequence[int],
    *,
    accepted: Set[int] = frozenset(),
    train: bool = False,
) -> Generator[Record, None, Made]:
    """What `entries` make of `state`; `accepted` made that.

    Quantisation is trained only where it misses its gate without, or with `train`.
    """
    taken, untrained = {*accepted}, None
    for at in entries:
        entry = bench.recipe.entries[at]
        spared = entry.trains and entry.step.stage == Stage.QUANTIZE and not train
        for recovers in (False, True) if spared else (True,):
            record, candidate = bench.attempt(at, state, judged=True, recovers=recovers)
            yield record
            if candidate is not None:
                untrained = untrained if recovers else (at, state)
                state = candidate
                taken.add(at)
            if not record.details.get("repairable"):
                break
    return Made(state, frozenset(taken), untrained)
