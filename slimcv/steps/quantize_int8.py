"""Weights and activations become 8-bit integers (Intel Neural Compressor, static, calibrated on pictures)."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable, Rejected
from slimcv.step import Context, Gain, InputSpec, Stage, Step, Variant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor
    from torch.fx import GraphModule

    from slimcv.data import Split

_NAMED = 5

_FEW, _SAMPLE = 64, 32
"""Pictures that channels are compared on, and those that outputs are."""

log = logging.getLogger("slimcv")


class QuantizeInt8(Step):
    """One graph for Inductor, ONNX Runtime and OpenVINO (see slimcv.quantization).

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
        default=0.9, ge=0, le=1, description="share of the MACs that must be done on integers"
    )
    reduce_range: Literal["auto"] | bool = Field(
        default="auto",
        description="weights of 7 bits, for CPUs whose 8-bit sums saturate; auto: where there is no VNNI",
    )
    target_isa: Literal["host", "avx2", "avx512", "avx512_vnni", "avx512_bf16", "amx"] = Field(
        default="host", description="what the CPU has that will serve the result; host: what this one has"
    )
    correct_bias: bool = Field(
        default=True, description="take out of each bias what quantisation shifts the layer's mean by"
    )
    equalize: bool = Field(
        default=True, description="bring the channels between two layers to like size first, which is exact"
    )
    max_error: float = Field(
        default=0.1,
        gt=0,
        description="where outputs move by more than this share of their norm, layers stay in float",
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
        """A few pictures set the ranges, and every layer is taken whatever its error."""
        untuned = {"correct_bias": False, "equalize": False, "max_error": float("inf")}
        return self.model_copy(update={"calibration_images": self.batch_size, **untuned})

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The INT8 graph; artifacts made of the float one are dropped."""
        from slimcv import quantization
        from slimcv.measure import environment, macs
        from slimcv.quantization import calibration

        train = calibration.pictures_for(variant, context)
        if any(map(quantization.dequantizes, variant.model.graph.nodes)):
            raise NotApplicable("the weights are integers already")
        reduce_range = (
            environment.saturates(self.target_isa) if self.reduce_range == "auto" else self.reduce_range
        )
        count = min(self.calibration_images, len(train))
        log.info(
            "quantize_int8: calibrating on %d pictures, weights of %d bits for %s",
            count,
            7 if reduce_range else 8,
            "this CPU" if self.target_isa == "host" else f"CPUs with {self.target_isa}, timed on this one",
        )
        with quantization.calibration_speed(context.train_threads):
            model, left = self._quantized(variant, train, reduce_range, seed=context.seed)
        share = macs.int8_share(model, variant.input)
        in_float = quantization.layers_in_float(model, variant.input)
        if share < self.min_int8_share:
            raise Rejected(
                f"only {share:.1%} of the MACs are INT8, asked for {self.min_int8_share:.0%}; "
                f"in float stay {_largest(in_float)}"
            )
        details = {
            "calibration_images": count,
            "reduce_range": reduce_range,
            "target_isa": self.target_isa,
            "correct_bias": self.correct_bias,
            "equalize": self._equalizes,
            "preserve": list(self.preserve),
            "scale_bits": self.scale_bits,
            "layers_in_float": list(in_float),
            "layers_left_in_float": left,
        }
        return replace(
            variant,
            model=model,
            precision="int8",
            int8_mac_share=share,
            artifacts={},
            details={**variant.details, "quantize_int8": details},
        )

    def _quantized(
        self, variant: Variant, train: Split, reduce_range: bool, *, seed: int
    ) -> tuple[GraphModule, list[str]]:
        """The INT8 graph, and the layers that were left in float because they bear 8 bits worst."""
        import torch

        from slimcv import quantization, sensitivity, surgery
        from slimcv.models import capture

        def quantized(in_float: Sequence[str]) -> GraphModule:
            return quantization.quantize(
                model,
                self._batches(train, variant.input, seed=seed),
                input=variant.input,
                reduce_range=reduce_range,
                correct_bias=self.correct_bias,
                in_float=in_float,
                preserve=self.preserve,
                mantissa_bits=self.scale_bits,
            )

        few = self.model_copy(update={"calibration_images": min(self.calibration_images, _FEW)})
        pictures = list(few._batches(train, variant.input, seed=seed))
        model = capture.copy(variant.model)
        capture.set_training(model, False)
        if self._equalizes:
            surgery.equalize(model, pictures)
        found = quantized(())
        sample = torch.cat(pictures)[:_SAMPLE]
        with torch.no_grad():
            expected = variant.model(sample)
            error = sensitivity.relative_error(found(sample), expected)
            if error <= self.max_error:
                return found, []
            levels = (quantization.REDUCED if reduce_range else quantization.FULL)[1]
            treatment = sensitivity.int8(levels)
            deployed = sensitivity.as_deployed(model, variant.input)
            apart = sensitivity.sample(deployed, variant.input, train=train, seed=seed)
            ranked = sensitivity.rank(deployed, apart, variant.input, treatment=treatment, seed=seed)
            allowed = 1.0 - self.min_int8_share
            left = sensitivity.to_leave(ranked, error=self.max_error, mac_share=allowed)
            if not left:
                return found, []
            log.info("quantize_int8: outputs move by %.0f %%; %s left in float", 100 * error, ", ".join(left))
            gentler = quantized(left)
            better = sensitivity.relative_error(gentler(sample), expected) < error
        return (gentler, left) if better else (found, [])

    @property
    def _equalizes(self) -> bool:
        """Multiplying each channel by a number of its own would pull shared values apart."""
        return self.equalize and "clusters" not in self.preserve

    def _batches(self, train: Split, input: InputSpec, *, seed: int) -> Iterator[Tensor]:
        """Calibration pictures: a seeded sample of the training pictures, normalised."""
        from slimcv.data.batches import batches
        from slimcv.quantization import calibration

        order = calibration.sample(train, self.calibration_images, seed)
        pixels = train.pixels(input.height, input.width, input.channels)
        for x, _, _ in batches(pixels, train.labels, input, batch_size=self.batch_size, order=order):
            yield x


def _largest(layers: dict[str, int]) -> str:
    """The layers with the most MACs, by name."""
    order = sorted(layers, key=layers.__getitem__, reverse=True)
    more = f" and {len(order) - _NAMED} more" if len(order) > _NAMED else ""
    return ", ".join(order[:_NAMED]) + more
