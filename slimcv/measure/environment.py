"""What a figure was measured on: the CPU and its instruction sets, memory, versions of libraries."""

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from slimcv.measure import allocator, threads

_CPUINFO = Path("/proc/cpuinfo")

ISA_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "i8mm",
    "bf16",
    "sve",
)
"""The flags that decide which kernels a runtime chooses, as Linux spells them in /proc/cpuinfo."""

_ISA_CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")
_AVX2 = ("avx2", "fma", "f16c")
_AVX512 = (*_AVX2, "avx512f")
_WITHIN_CAP = {
    "sse41": (),
    "avx": (),
    "avx2": _AVX2,
    "avx2_vnni": (*_AVX2, "avx_vnni"),
    "avx2_vnni_2": (*_AVX2, "avx_vnni"),
    "avx512_core": _AVX512,
    "avx512_core_vnni": (*_AVX512, "avx512_vnni"),
    "avx512_core_bf16": (*_AVX512, "avx512_vnni", "avx512_bf16"),
    "avx512_core_fp16": (*_AVX512, "avx512_vnni", "avx512_bf16", "avx_vnni", "avx512_fp16"),
}
"""Which of `ISA_FLAGS` kernels may use where oneDNN is capped; any other value leaves out nothing of them.

Source: oneDNN documentation, "CPU Dispatcher Control".
"""

_LIBRARIES = ("slimcv", "torch", "torchao", "numpy", "onnx", "onnxruntime", "openvino", "neural-compressor")


@dataclass(frozen=True)
class Environment:
    """The machine and the software; `threads_allowed` is what affinity and container quota leave.

    Where the allocator is not `tunable`, every latency and every training is with the one there is.
    """

    cpu: str
    architecture: str
    isa: tuple[str, ...]
    cores: int
    threads_allowed: int
    memory_bytes: int
    allocator_tunable: bool
    system: str
    python: str
    versions: dict[str, str]

    def as_json(self) -> dict[str, Any]:
        """The object written to report.json and to the manifest."""
        return {**asdict(self), "isa": list(self.isa)}


def describe() -> Environment:
    """The machine this runs on. Libraries are not imported for their version; absent ones are left out."""
    return Environment(
        cpu=cpu_model(),
        architecture=platform.machine(),
        isa=isa(),
        cores=os.cpu_count() or 1,
        threads_allowed=threads.available(),
        memory_bytes=memory_bytes(),
        allocator_tunable=allocator.tunable(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        versions=versions(),
    )


def cpu_model(cpuinfo: Path = _CPUINFO) -> str:
    """The CPU's name as its maker gives it."""
    return _field(cpuinfo, "model name") or platform.processor() or platform.machine()


def isa(cpuinfo: Path = _CPUINFO, *, runtime: str | None = None) -> tuple[str, ...]:
    """Those of `ISA_FLAGS` that this CPU has and kernels may use; empty where the system does not tell.

    What `isa_cap` leaves out is not there for OpenVINO and PyTorch, and so counts as absent, unless `runtime`
    is ONNX Runtime.
    """
    flags = set((_field(cpuinfo, "flags") or _field(cpuinfo, "Features")).split())
    cap = None if runtime == "onnxruntime" else isa_cap()
    allowed = _WITHIN_CAP.get(cap.partition("=")[2].lower(), ISA_FLAGS) if cap else ISA_FLAGS
    return tuple(flag for flag in ISA_FLAGS if flag in flags and flag in allowed)


def isa_cap() -> str | None:
    """The environment's limit on oneDNN's kernels, such as "ONEDNN_MAX_CPU_ISA=AVX2", or None.

    OpenVINO and PyTorch compute with oneDNN, ONNX Runtime does not.
    """
    return next((f"{name}={os.environ[name]}" for name in _ISA_CAPS if os.environ.get(name)), None)


def has_int8_instructions(cpuinfo: Path = _CPUINFO, *, runtime: str | None = None) -> bool:
    """Whether 8-bit products are summed in 32 bits (VNNI, AMX, Arm dot product), by the kernels of `runtime`.

    Without them x86 kernels sum pairs in 16 bits that saturate (`vpmaddubsw`), so that weights must be
    quantised to 7 bits, "reduced range", to keep the accuracy.
    """
    return bool(
        {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"} & set(isa(cpuinfo, runtime=runtime))
    )


def saturates(target_isa: str) -> bool:
    """Whether 8-bit sums overflow on a CPU that has "avx2", "avx512", "avx512_vnni" …, or on this "host"."""
    return not has_int8_instructions() if target_isa == "host" else target_isa in ("avx2", "avx512")


@dataclass(frozen=True)
class Integers:
    """How weights in 8 bits are made for the CPU that is to serve.

    With `computed_exactly` sums overflow on this machine and not on that one: what the network answers there
    must be computed without integer kernels here.
    """

    reduce_range: bool
    target_isa: str
    computed_exactly: bool


def integers_for(target_isa: str, reduce_range: bool | Literal["auto"]) -> Integers:
    """Weights of half the range where asked for, or where the CPU's sums would overflow."""
    reduced = saturates(target_isa) if reduce_range == "auto" else reduce_range
    exactly = not reduced and saturates("host") and not saturates(target_isa)
    return Integers(reduced, target_isa, exactly)


def has_bf16_instructions(cpuinfo: Path = _CPUINFO) -> bool:
    """Whether the CPU multiplies bfloat16 in hardware; elsewhere it is emulated and slower than float32."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(isa(cpuinfo)))


def channel_blocks(cpuinfo: Path = _CPUINFO) -> tuple[int, ...]:
    """By how many channels the kernels of this CPU go, the largest first: floats of a vector register.

    oneDNN pads the last block, so that a layer whose width is no multiple computes on padding. Source:
    oneDNN documentation, "Understanding Memory Formats", blocked layouts (`nChw16c`, `nChw8c`).
    """
    return (16, 8) if "avx512f" in isa(cpuinfo) else (8,)


def memory_bytes() -> int:
    """Physical memory of the machine; 0 where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def versions() -> dict[str, str]:
    """Installed versions of the libraries a result depends on."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _field(cpuinfo: Path, name: str) -> str:
    """The value of the first line "name : value"."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == name), "")
