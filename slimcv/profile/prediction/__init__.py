"""What each step would save on this network and this machine, from the times of the layers it would make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from slimcv.errors import NotApplicable
from slimcv.profile import kinds
from slimcv.profile.layers import Layer
from slimcv.profile.prediction.bench import MOST_WEIGHTS, TIMED, Bench
from slimcv.profile.prediction.changes import FLOAT_BYTES, Change, Network, change_of
from slimcv.profile.prediction.pieces import Piece
from slimcv.report import figures

if TYPE_CHECKING:
    from slimcv.step import Step

__all__ = ["SECONDS", "Bench", "Network", "Prediction", "predict", "predict_all", "unforetold"]

SECONDS = 4.0
"""What predicting all steps may take; layers are timed the slowest first, so that the last matter least."""

_LEAST_FACTOR, _MOST_FACTOR = 0.33, 3.0
"""Between a layer in the network and the same alone, whose inputs and weights are still in the cache."""

_WORTH, _MUCH, _MOST = 1.05, 0.3, 0.8
"""A smaller gain is none that a prediction can tell; from a third of the time on a cause is named, and one
kind of layer alone where it has four fifths of that."""

_PICTURES, _ROUGH = 1000, 0.1
"""Pictures that a training's time is told for, and how sure it is."""

_FUSED = frozenset({kinds.ACTIVATION, kinds.BATCH_NORM, kinds.NORMALISATION, kinds.DROPOUT, kinds.RESHAPE})
"""Kinds that runtimes merge into the layers around them, or that cost nothing there."""


@dataclass(frozen=True)
class Prediction:
    """What one step with these `settings` would do, all else as it is; None is not known.

    Milliseconds are for one picture, the sum over the layers, in `runtime`; `before_ms` is the network as it
    is, in the runtime that was profiled. Bytes are those of the weights. The milliseconds of training are a
    picture's part of a training step in the convolutions and linear layers that change, or in all of them
    where the step is a training. `timed_share` (0 to 1) is
    the part of the changed layers' time whose new form was really timed, the rest being taken for alike.
    `verdict` says where it is not worth its while, and why. `problem` says why there is no prediction.
    `recipe` is the line for a recipe, `stage` and `enabling` are the step's own (see slimcv.step).
    """

    step: str
    runtime: str
    before_ms: float
    after_ms: float | None
    before_bytes: int
    after_bytes: int | None
    training_before_ms: float | None
    training_after_ms: float | None
    timed_share: float
    note: str
    verdict: str
    problem: str | None
    recipe: str
    stage: int
    enabling: bool

    def as_json(self) -> dict[str, Any]:
        """The fields, and what is saved of time, bytes and a picture's training; None is not known."""
        return {
            **asdict(self),
            "saved_ms": _difference(self.before_ms, self.after_ms),
            "saved_bytes": _difference(self.before_bytes, self.after_bytes),
            "saved_training_ms": _difference(self.training_before_ms, self.training_after_ms),
        }

    @property
    def speedup(self) -> float | None:
        """How many times faster."""
        return self.before_ms / self.after_ms if self.after_ms else None


def predict_all(
    network: Network, steps: Iterable[tuple[str, Step]], *, threads: int, seconds: float | None = None
) -> tuple[Prediction, ...]:
    """A prediction for each of the steps by name, made in `SECONDS` or so many, the largest saving first.

    What the steps change is found first: folding norms copies the weights, which is better done before
    runtimes are in memory too.
    """
    seconds, begun = SECONDS if seconds is None else seconds, perf_counter()
    ahead = [(name, step, *_planned(name, step, network)) for name, step in steps]
    left = seconds - (perf_counter() - begun)
    bench = Bench(threads=threads, deadline=0.0)
    if seconds:
        bench.warm()
    end = perf_counter() + left
    found = []
    while ahead:
        # An equal part of what is left for each: what was timed for one step is known to the next.
        bench.deadline = perf_counter() + max(0.0, end - perf_counter()) / len(ahead)
        found.append(_predicted(*ahead.pop(0), network, bench))
    return tuple(sorted(found, key=lambda one: (one.after_ms is None, one.after_ms, one.after_bytes or 0)))


def predict(name: str, step: Step, network: Network, bench: Bench) -> Prediction:
    """What this step would do to the network, compared with the network as it is."""
    return _predicted(name, step, *_planned(name, step, network), network, bench)


def _planned(name: str, step: Step, network: Network) -> tuple[Change, str | None]:
    """What the step changes; nothing, and why, where that cannot be foretold or its layers not be timed."""
    try:
        change = change_of(name, step, network)
    except NotApplicable as error:
        return Change(), error.message
    if (change.runtime or network.runtime) not in TIMED:
        return Change(), f"layers are not timed one by one in {network.runtime}"
    return change, None


def _predicted(
    name: str, step: Step, change: Change, problem: str | None, network: Network, bench: Bench
) -> Prediction:
    before = sum(layer.ms for layer in network.layers.values())
    after: float | None = None
    timed, untimed = 0.0, ""
    training: tuple[float | None, float | None] = (None, None)
    if problem is None:
        after, timed, untimed = _time(change, network, bench)
        training = _training(change, network, bench)
    return Prediction(
        step=name,
        runtime=change.runtime or network.runtime,
        before_ms=before,
        after_ms=after,
        before_bytes=network.weight_bytes,
        after_bytes=None if problem else _bytes(change, network),
        training_before_ms=training[0],
        training_after_ms=training[1],
        timed_share=timed,
        note="; ".join(filter(None, (change.note, _trained(change, step, training[0])))),
        verdict="" if problem else untimed or _verdict(change, network, before, after),
        problem=problem,
        recipe=recipe_lines(name, step),
        stage=int(step.stage),
        enabling=step.enabling,
    )


def unforetold(name: str, kind: type[Step], network: Network, problem: str) -> Prediction:
    """The row of a step that cannot even be built, and why."""
    return Prediction(
        step=name,
        runtime=network.runtime,
        before_ms=sum(layer.ms for layer in network.layers.values()),
        after_ms=None,
        before_bytes=network.weight_bytes,
        after_bytes=None,
        training_before_ms=None,
        training_after_ms=None,
        timed_share=0.0,
        note="",
        verdict="",
        problem=problem,
        recipe=f"- {name}",
        stage=int(kind.stage),
        enabling=kind.enabling,
    )


def recipe_lines(name: str, step: Step) -> str:
    """An entry of a recipe's `steps`, with what differs from the step's defaults."""
    chosen = step.model_dump(exclude_defaults=True, mode="json")
    settings = ", ".join(f"{key}: {value}" for key, value in chosen.items())
    return f"- {name}: {{{settings}}}" if settings else f"- {name}"


def _difference(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None else before - after


def _verdict(change: Change, network: Network, before: float, after: float | None) -> str:
    """Why there is no gain in time, by what time is spent on; empty where there is one or none is meant."""
    if not after or before / after >= _WORTH:
        return ""
    if change.scales and not change.pieces and not any(network.layers[node].ms for node in change.scales):
        return f"no faster: {network.runtime} merges these layers by itself"
    if not (change.int8 or change.pieces or change.runtime):
        return ""
    verdict = "INT8 not worth it for speed" if change.int8 else "not worth it for speed"
    waiting = _memory_bound(network)
    return f"{verdict}: {waiting}" if waiting and (change.int8 or change.pieces) else verdict


def _memory_bound(network: Network) -> str:
    """How much of the time waits for memory, and in which layers; empty where that is no cause to name."""
    spent: dict[str, float] = {}
    for layer in network.layers.values():
        if layer.bound == "memory":
            spent[layer.kind] = spent.get(layer.kind, 0.0) + layer.share
    share = sum(spent.values())
    if share < _MUCH:
        return ""
    kind = max(spent, key=lambda kind: spent[kind])
    if spent[kind] >= _MOST * share:
        return f"{100 * spent[kind]:.0f} % of the time is memory-bound {kind}"
    return f"{100 * share:.0f} % of the time is memory-bound, most of it {kind}"


def _trained(change: Change, step: Step, training_ms: float | None) -> str:
    """How long a training takes that changes no layer."""
    if not change.trained or training_ms is None:
        return ""
    seconds = getattr(step, "epochs", 1) * _PICTURES * training_ms / 1000
    return (
        f"at least {figures.milliseconds(training_ms, spread=_ROUGH)} a picture and epoch, "
        f"{figures.duration(seconds)} for {_PICTURES:,} pictures"
    )


def _time(change: Change, network: Network, bench: Bench) -> tuple[float | None, float, str]:
    """Milliseconds of the whole network afterwards, and the share of the changed part that was timed.

    Where none of it was, the milliseconds are None, and why the slowest layer was not comes last.
    """
    runtime = change.runtime or network.runtime
    elsewhere = runtime != network.runtime
    kept, rest, old, new = 0.0, 0.0, 0.0, 0.0
    untimed = ""
    for layer in sorted(network.layers.values(), key=lambda layer: -layer.ms):
        piece = network.pieces.get(layer.node)
        if piece is None:
            scale = change.scales.get(layer.node, 1.0)
            kept += scale * (_elsewhere(layer) if elsewhere else layer.ms)
        elif not (elsewhere or change.int8 or layer.node in change.pieces):
            kept += layer.ms
        else:
            pieces = change.pieces.get(layer.node, (piece,))
            after = _pieces_ms(piece, pieces, layer, change, network, bench)
            if after is None:
                rest += layer.ms
                untimed = untimed or _untimed(piece, pieces, change, network, bench)
            else:
                old, new = old + layer.ms, new + after
    if rest and not old:
        return None, 0.0, untimed
    share = old / (old + rest) if old + rest else 1.0
    return kept + new + (rest * new / old if old else 0.0), share, ""


def _pieces_ms(
    piece: Piece,
    pieces: Sequence[Piece],
    layer: Layer,
    change: Change,
    network: Network,
    bench: Bench,
) -> float | None:
    """The new pieces' time, times what the layer takes in the network over what it takes alone."""
    runtime = change.runtime or network.runtime
    if not pieces:
        return 0.0
    times = [bench.ms(one, runtime, int8=change.int8) for one in pieces]
    if any(time is None for time in times):
        return None
    factor = 1.0
    if runtime == network.runtime:
        alone = bench.ms(piece, runtime)
        if alone is None and piece.weights <= MOST_WEIGHTS:
            return None
        factor = layer.ms / alone if alone else 1.0
    return sum(filter(None, times)) * min(_MOST_FACTOR, max(_LEAST_FACTOR, factor))


def _untimed(piece: Piece, pieces: Sequence[Piece], change: Change, network: Network, bench: Bench) -> str:
    """Why there is no time for the new pieces, or for the one whose place they take."""
    runtime = change.runtime or network.runtime
    for one in pieces:
        if bench.ms(one, runtime, int8=change.int8) is None:
            return bench.untimed(one, runtime, int8=change.int8)
    return bench.untimed(piece, runtime)


def _elsewhere(layer: Layer) -> float:
    """A layer that is no piece, in another runtime: merged, or as fast as the memory."""
    if layer.kind in _FUSED:
        return 0.0
    if layer.kind == kinds.ATTENTION or layer.roofline_ms is None:
        return layer.ms
    return min(layer.ms, layer.roofline_ms)


def _training(change: Change, network: Network, bench: Bench) -> tuple[float | None, float | None]:
    """A picture's training in the layers that change before and after, None where none does.

    Of a training that leaves them as they are, all are told. Layers that there was no time for are taken for
    as slow by the MAC, before and after, as the rest.
    """
    if change.trained:
        whole = _whole_training(network, bench)
        return whole, whole
    timed = before = after = left = 0.0
    for node, pieces in sorted(change.pieces.items(), key=lambda item: -network.pieces[item[0]].macs):
        old = network.pieces[node]
        times = [bench.training_ms(piece) for piece in (old, *pieces)]
        if any(time is None for time in times):
            left += old.macs
            continue
        first, *others = (time or 0.0 for time in times)
        timed, before, after = timed + old.macs, before + first, after + sum(others)
    whole_share = (timed + left) / timed if timed else 1.0
    return (before * whole_share, after * whole_share) if before else (None, None)


def _whole_training(network: Network, bench: Bench) -> float | None:
    """All layers that multiply; those that there was no time for are taken for as slow as the rest."""
    timed = spent = left = 0.0
    for piece in sorted(network.pieces.values(), key=lambda piece: -piece.macs):
        ms = bench.training_ms(piece)
        if ms is None:
            left += piece.macs
        else:
            timed, spent = timed + piece.macs, spent + ms
    return spent * (timed + left) / timed if timed else None


def _bytes(change: Change, network: Network) -> int:
    if change.weight_bytes is not None:
        return change.weight_bytes
    left = network.weight_bytes
    for node, piece in network.stored.items():
        made = change.pieces.get(node, (piece,))
        left += FLOAT_BYTES * (sum(each.weights for each in made) - piece.weights)
    return left
