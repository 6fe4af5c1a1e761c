"""Weights share few values, which training then moves together: for a smaller packed file, not for speed."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from slimcv.errors import NotApplicable
from slimcv.step import Context, Gain, Stage, Step, Variant
from slimcv.train.settings import FinetuneSettings

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("slimcv")


class ClusterWeights(Step, FinetuneSettings):
    """Weight sharing with fine-tuned centroids (Han et al. 2016, "Deep Compression").

    The gradient of a shared value is the sum over its weights. Norms are folded before, because folding
    multiplies each channel by a number of its own: hence a stage after that of fuse_conv_bn. Without
    pictures, or with no epochs, the values stay as k-means finds them. Raises NotApplicable where norms are
    left that could be folded, or every layer is too small.
    """

    stage: ClassVar[Stage] = Stage.CLUSTER
    enabling: ClassVar[bool] = True
    gains: ClassVar[Gain | None] = "clusters"

    epochs: int = Field(
        6, ge=0, le=10_000, description="rounds through the training pictures; 0 leaves the values as found"
    )
    clusters: int = Field(
        32, ge=2, le=256, description="distinct values, zero included where zeros are preserved"
    )
    per: Literal["tensor", "channel"] = Field(
        "tensor", description="what has these values to itself: a layer's weights or each output's"
    )
    init: Literal["density", "linear", "kmeans++"] = Field(
        "density", description="where k-means begins: equal shares of the weights, evenly spaced, or drawn"
    )
    include: tuple[str, ...] = Field(("*",), description="globs on the layers' names to cluster")
    exclude: tuple[str, ...] | Literal["auto"] = Field(
        (),
        description="globs on the layers' names to leave; auto: those that bear 16 shared values worst "
        "(slimcv sensitivity), a tenth of the weights at most",
    )

    @property
    def trains(self) -> bool:  # type: ignore[override]
        """Not with no epochs."""
        return self.epochs > 0

    def undoes(self, gained: Gain, *, recovers: bool) -> str | None:  # noqa: ARG002
        """Zeros become a shared value near zero where they are not preserved."""
        if gained == "sparsity":
            return self.forgets(gained)
        return "every output gets values of its own" if self.per == "channel" else None

    def apply(self, variant: Variant, context: Context) -> Variant:
        """The clustered variant; `details["cluster_weights"]` has the distinct values by layer."""
        import torch

        from slimcv import sensitivity, surgery
        from slimcv.models import capture
        from slimcv.surgery.layers import chosen
        from slimcv.train import finetune

        capture.set_training(variant.model, False)
        foldable = surgery.fold_norms(capture.copy(variant.model), variant.input)
        if foldable:
            raise NotApplicable(
                f"folding the {foldable} BatchNorms that are left would pull shared values apart",
                "put fuse_conv_bn before cluster_weights",
            )
        exclude = sensitivity.excluded(
            self.exclude, variant, context, treatment=sensitivity.cluster(), step="cluster_weights"
        )
        layers = chosen(variant.model, include=self.include, exclude=exclude)
        names = [name for name, weight in layers.items() if self._share(weight, context.seed)]
        if not names:
            raise NotApplicable(f"no layer has weights enough for {self.clusters} values")
        if self.trains and context.data is not None:
            keep = {"preserve": ("clusters", "sparsity") if self._keeps_zeros else ("clusters",)}
            training = {name: getattr(self, name) for name in FinetuneSettings.model_fields} | keep
            variant = finetune(variant, context, FinetuneSettings(**training)).variant
        layers = chosen(variant.model, include=self.include, exclude=exclude)
        details = {
            "clusters": self.clusters,
            "per": self.per,
            "exclude": list(exclude),
            "values": {name: len(torch.unique(layers[name])) for name in names},
        }
        log.info("cluster_weights: %d layers, at most %d values per %s", len(names), self.clusters, self.per)
        return replace(variant, artifacts={}, details={**variant.details, "cluster_weights": details})

    @property
    def _keeps_zeros(self) -> bool:
        return self.preserve == "auto" or "sparsity" in self.preserve

    def _share(self, weight: Tensor, seed: int) -> bool:
        """Give a layer few values; False where it is too small."""
        from slimcv.surgery import sharing

        def share(part: Tensor) -> bool:
            return sharing.share(
                part, self.clusters, initial=self.init, keep_zeros=self._keeps_zeros, seed=seed
            )

        with_outputs = weight.detach()
        return share(with_outputs) if self.per == "tensor" else all(map(share, with_outputs))
