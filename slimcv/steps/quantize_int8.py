"""Weights and activations become 8-bit integers (Intel Neural Compressor, static, calibrated on pictures)."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable, Rejected
from slimcv.step import Context, Gain, InputSpec, Stage, Step, Variant
from slimcv.train.settings import Seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from slimcv.data import Split
    from slimcv.quantization.rungs import Climbed

_NAMED = 5

log = logging.getLogger("slimcv")


class QuantizeInt8(Step):
    """One graph for Inductor, ONNX Runtime and OpenVINO (see slimcv.quantization), by a ladder of rungs.

    Raises NotApplicable where there is nothing to quantise, Rejected where too much stays in float.
    """

    stage: ClassVar[Stage] = Stage.QUANTIZE
    needs_data: ClassVar[bool] = True
    quantizes: ClassVar[bool] = True

    calibration_images: int = Field(
        default=300, ge=1, description="training pictures that set the ranges of the activations"
    )
    batch_size: int = Field(default=16, ge=1, description="pictures whose extremes are averaged as one")
    min_int8_share: float = Field(
        default=0.95, ge=0, le=1, description="share of the MACs that must be done on integers"
    )
    reduce_range: Literal["auto"] | bool = Field(
        default="auto",
        description="weights of 7 bits, for CPUs whose 8-bit sums saturate; auto: where there is no VNNI",
    )
    target_isa: Literal["host", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"] = Field(
        default="host", description="what the CPU has that will serve the result; host: what this one has"
    )
    rungs: tuple[Literal["ranges", "bias", "mixed"], ...] = Field(
        default=("ranges", "bias", "mixed"),
        description="what is tried, in this order, where the gate is missed without",
    )
    budget: Seconds | None = Field(
        default=180.0,
        description="wall time for the rungs after the first, such as 90s or 3m; null for none",
    )
    judged_images: int = Field(
        default=128, ge=1, description="pictures of the tuning split that rungs are judged on"
    )
    correct_bias: bool = Field(
        default=True,
        description="the rung bias takes out of each bias what quantisation shifts the means by",
    )
    equalize: bool = Field(
        default=True,
        description="the rung ranges brings channels between two layers to like size, which is exact",
    )
    max_error: float = Field(
        default=0.1,
        gt=0,
        description="share of their norm that outputs may move by, where pictures are too few for the gate",
    )

    preserve: tuple[Gain, ...] = Field(
        default=(),
        description="sparsity: zeros stay in training too; clusters: one scale for those, no equalize",
    )
    scale_bits: int | None = Field(
        default=None,
        ge=1,
        le=23,
        description="bits of mantissa that scales and biases keep, for a smaller packed file; 7 are those of "
        "bfloat16, null keeps all",
    )

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:
        """Symmetric scales leave zeros zero; the rest must be asked for."""
        if gained in self.preserve:
            return None
        if gained == "clusters":
            return "a scale for every channel makes several integers of a shared value"
        return "trained with its rounding, weights that are zero move" if recovers else None

    def draft(self) -> QuantizeInt8:
        """A few pictures set the ranges, and no rung is tried whatever the error."""
        return self.model_copy(update={"calibration_images": self.batch_size, "rungs": ()})

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The INT8 graph; artifacts made of the float one are dropped."""
        from slimcv import quantization
        from slimcv.measure import environment, macs
        from slimcv.quantization import calibration

        train = calibration.pictures_for(variant, context)
        if any(map(quantization.dequantizes, variant.model.graph.nodes)):
            raise NotApplicable("the weights are integers already")
        made = environment.integers_for(self.target_isa, self.reduce_range)
        if made.computed_exactly:
            log.info(
                "quantize_int8: 8-bit sums overflow on this CPU, not on those with %s: answers are computed "
                "exactly, not by this CPU's integer kernels",
                self.target_isa,
            )
        count = min(self.calibration_images, len(train))
        log.info(
            "quantize_int8: calibrating on %d pictures, weights of %d bits for %s",
            count,
            7 if made.reduce_range else 8,
            "this CPU" if self.target_isa == "host" else f"CPUs with {self.target_isa}, timed on this one",
        )
        with quantization.calibration_speed(context.train_threads):
            climbed = self._climbed(variant, train, context, reduce_range=made.reduce_range)
        best = climbed.best
        share = macs.int8_share(best.graph, variant.input)
        in_float = quantization.layers_in_float(best.graph, variant.input)
        if share < self.min_int8_share:
            raise Rejected(
                f"only {share:.1%} of the MACs are INT8, asked for {self.min_int8_share:.0%}; "
                f"in float stay {_largest(in_float)}"
            )
        details = {
            "calibration_images": count,
            **asdict(made),
            "correct_bias": best.corrected,
            "equalize": best.equalized,
            "ranges": best.ranges,
            "preserve": list(self.preserve),
            "scale_bits": self.scale_bits,
            "layers_in_float": list(in_float),
            "layers_left_in_float": list(best.left),
            "rungs": [rung.as_json() for rung in climbed.rungs],
        }
        return replace(
            variant,
            model=best.graph,
            precision="int8",
            int8_mac_share=share,
            artifacts={},
            details={**variant.details, "quantize_int8": details},
        )

    def _climbed(self, variant: Variant, train: Split, context: Context, *, reduce_range: bool) -> Climbed:
        """The best graph that the rungs give in their time, and what each of them came to."""
        from slimcv import sensitivity
        from slimcv.models import capture
        from slimcv.quantization import judging, rungs

        tried = [name for name in self.rungs if name != "bias" or self.correct_bias]

        def pictures(most: int | None) -> Iterator[Tensor]:
            count = self.calibration_images if most is None else min(most, self.calibration_images)
            return self._batches(train, variant.input, count=count, seed=context.seed)

        plan = rungs.Plan(
            rungs=("plain", *tried),
            input=variant.input,
            batches=pictures,
            sample=lambda model: sensitivity.sample(model, variant.input, train=train, seed=context.seed),
            reduce_range=reduce_range,
            # Multiplying each channel by a number of its own would pull shared values apart.
            equalize=self.equalize and "clusters" not in self.preserve,
            min_int8_share=self.min_int8_share,
            max_error=self.max_error,
            seed=context.seed,
            preserve=self.preserve,
            mantissa_bits=self.scale_bits,
            budget=self.budget,
            until=context.deadline,
        )
        model = capture.copy(variant.model)
        capture.set_training(model, False)
        if not tried:
            return rungs.climb(model, plan, None)
        judge = judging.Judge(
            replace(variant, model=model), context, count=self.judged_images, max_error=self.max_error
        )
        return rungs.climb(model, plan, judge)

    def _batches(self, train: Split, input: InputSpec, *, count: int, seed: int) -> Iterator[Tensor]:
        """Calibration pictures: a seeded sample of the training pictures, normalised."""
        from slimcv.data.batches import batches
        from slimcv.quantization import calibration

        order = calibration.sample(train, count, seed)
        pixels = train.pixels(input.height, input.width, input.channels)
        for x, _, _ in batches(pixels, train.labels, input, batch_size=self.batch_size, order=order):
            yield x


def _largest(layers: dict[str, int]) -> str:
    """The layers with the most MACs, by name."""
    order = sorted(layers, key=layers.__getitem__, reverse=True)
    more = f" and {len(order) - _NAMED} more" if len(order) > _NAMED else ""
    return ", ".join(order[:_NAMED]) + more
