"""What candidates are called: a runtime, and after a colon what rounds numbers otherwise than the variant."""

from __future__ import annotations

FLOATS = ("fp32", "bf16")
"""Forms that compute in floats: the network as it is, or as it was before its 8 bits."""


def runtime_of(name: str) -> str:
    """What runs the file of a candidate: "openvino" of "openvino:nncf"."""
    return name.partition(":")[0]


def form_of(name: str) -> str:
    """What rounds a candidate's numbers otherwise than the variant: "nncf" of "openvino:nncf", else ""."""
    return name.partition(":")[2]
