"""The environment is read from the machine, and unknown things are left out rather than guessed."""

import json
import subprocess
import sys

import pytest

from slimcv.measure import environment

CPUINFO = """processor\t: 0
model name\t: Example CPU @ 2.0GHz
flags\t\t: fpu avx2 fma avx512f avx512_vnni avx512_bf16
processor\t: 1
model name\t: Example CPU @ 2.0GHz
"""


def test_the_cpu_and_its_instruction_sets_are_read(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text(CPUINFO)
    assert environment.cpu_model(file) == "Example CPU @ 2.0GHz"
    assert environment.isa(file) == ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16")
    assert environment.has_int8_instructions(file)
    assert environment.has_bf16_instructions(file)


@pytest.mark.parametrize(
    ("variable", "value", "isa"),
    [
        ("ONEDNN_MAX_CPU_ISA", "SSE41", ()),
        ("ONEDNN_MAX_CPU_ISA", "AVX2", ("avx2", "fma")),
        ("DNNL_MAX_CPU_ISA", "avx512_core", ("avx2", "fma", "avx512f")),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_VNNI", ("avx2", "fma", "avx512f", "avx512_vnni")),
        ("ONEDNN_MAX_CPU_ISA", "ALL", ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16")),
    ],
)
def test_what_kernels_may_not_use_counts_as_absent(tmp_path, monkeypatch, variable, value, isa):
    file = tmp_path / "cpuinfo"
    file.write_text(CPUINFO)
    monkeypatch.setenv(variable, value)
    assert environment.isa(file) == isa
    assert environment.has_int8_instructions(file) is ("avx512_vnni" in isa)
    assert environment.isa_cap() == f"{variable}={value}"
    assert environment.has_int8_instructions(file, runtime="onnxruntime"), "which does not heed it"
    assert environment.has_int8_instructions(file, runtime="openvino") is ("avx512_vnni" in isa)


def test_channels_go_by_what_a_vector_register_holds(tmp_path):
    for flags, expected in (("avx2 fma avx512f", (16, 8)), ("avx2 fma", (8,)), ("asimd", (8,))):
        file = tmp_path / "cpuinfo"
        file.write_text(f"flags\t\t: {flags}\n")
        assert environment.channel_blocks(file) == expected


def test_an_avx2_cpu_has_neither_int8_nor_bf16_instructions(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("flags : fpu avx2 fma\n")
    assert not environment.has_int8_instructions(file)
    assert not environment.has_bf16_instructions(file)


def test_an_arm_cpu_calls_its_flags_features(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("Features : fp asimd asimddp bf16\n")
    assert environment.isa(file) == ("asimd", "asimddp", "bf16")


def test_a_system_without_cpuinfo_has_no_flags(tmp_path):
    assert environment.isa(tmp_path / "absent") == ()


def test_the_environment_can_be_written_as_json_and_imports_no_library():
    code = (
        "import json, sys; from slimcv.measure import environment; "
        "print(json.dumps(environment.describe().as_json())); "
        "sys.exit(bool(set(sys.modules) & {'torch', 'numpy', 'onnx', 'openvino'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert found["threads_allowed"] >= 1
    assert found["memory_bytes"] > 0
    assert {"slimcv", "torch", "openvino"} <= set(found["versions"])


def test_sums_of_bytes_saturate_without_dot_products():
    assert [environment.saturates(isa) for isa in ("avx2", "avx512", "avx512_vnni", "amx")] == [
        True,
        True,
        False,
        False,
    ]
    assert environment.saturates("host") is not environment.has_int8_instructions()
