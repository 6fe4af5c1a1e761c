"""Recipes: every mistake is answered with file, entry, key and nearest valid name, before importing torch."""

import subprocess
import sys

import pytest

from slimcv import recipe, runtimes
from slimcv.bakeoff.candidates import FROM_CHECKPOINT, IN_FLOATS
from slimcv.errors import SlimcvError
from slimcv.instruments import yardstick
from slimcv.measure import environment
from slimcv.recipe import forced
from slimcv.step import Stage


def written(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return str(path)


def refusal(tmp_path, text, *overrides):
    with pytest.raises(SlimcvError) as caught:
        recipe.load(written(tmp_path, text), overrides=overrides)
    return f"{caught.value.message} | {caught.value.hint}"


@pytest.mark.parametrize("name", recipe.names())
def test_every_shipped_recipe_is_valid_and_described(name):
    loaded = recipe.load(name)
    assert loaded.description
    assert loaded.entries
    assert loaded.gate.max_drop is not None


def test_the_promised_recipes_are_shipped():
    assert {"cpu_fast", "cpu_int8", "cpu_lossless", "cpu_small", "cpu_tiny"} <= set(recipe.names())


def test_the_lossless_recipe_holds_only_lossless_steps():
    assert all(entry.step.lossless for entry in recipe.load("cpu_lossless").entries)


def test_an_entry_is_a_bare_name_or_a_mapping_with_parameters_repair_and_gate(tmp_path):
    text = """
    steps:
      - depthwise_separable: {rank: 2}
        recover: {epochs: 3}
        gate: {max_drop: 2}
      - fuse_conv_bn
    """
    first, second = recipe.load(written(tmp_path, text)).entries
    assert (first.step.rank, first.recover.epochs, first.gate.max_drop) == (2, 3, 2)
    assert (second.name, second.recover, second.gate) == ("fuse_conv_bn", None, None)
    assert first.trains
    assert not second.trains


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "steps: [depthwise_seperable]",
            "entry 1: unknown step 'depthwise_seperable' | did you mean 'depthwise_separable'?",
        ),
        ("steps:\n- depthwise_separable: {rnak: 2}", "unknown key 'rnak' | did you mean 'rank'?"),
        ("steps:\n- depthwise_separable: {rank: 0}", "entry 1 'depthwise_separable': rank = 0"),
        ("steps:\n- depthwise_separable: {rank: many}", "rank = 'many'"),
        (
            "steps: [fuse_conv_bn, depthwise_separable]",
            "entry 2 'depthwise_separable' (surgery) comes after 'fuse_conv_bn' (fuse)",
        ),
        ("stps: [fuse_conv_bn]", "unknown key 'stps' | did you mean 'steps'?"),
        (
            "steps: [fuse_conv_bn]\ngate: {max_dorp: 1}",
            "gate: unknown key 'max_dorp' | did you mean 'max_drop'",
        ),
        ("steps: [fuse_conv_bn]\nobjective: speed", "objective is 'speed'"),
        (
            "steps:\n- fuse_conv_bn: {}\n  recover: {epohcs: 1}",
            "recover: unknown key 'epohcs' | did you mean 'epochs'?",
        ),
        ("steps:\n- fuse_conv_bn: {}\n  finetune: {}", "entry 1 names 2 steps"),
        (
            "steps:\n- quantize_weights: {}\n  recover: {epochs: 1}",
            "'quantize_weights': recover: its integers are no weights that training could change | train",
        ),
        (
            "steps: [{prune_weights: {pattern: '2:4', scope: global}}]",
            "2:4 takes the same share of every layer, which is `scope: layer`",
        ),
        (
            "steps:\n- fuse_conv_bn: {}\n  gate: {min_speedup: 2}",
            "min_speedup is asked of what is shipped, in the final measurement | give it to the recipe",
        ),
        ("steps: []", "at least one step"),
        ("steps: fuse_conv_bn", "'steps' must be a list"),
        ("steps: [[fuse_conv_bn]]", "entry 1 is ['fuse_conv_bn']"),
        ("- fuse_conv_bn", "a recipe is a mapping"),
        ("steps: [a\n b: {", "line 2: not YAML"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_the_nearest_name(tmp_path, text, expected):
    said = refusal(tmp_path, text)
    assert expected in said
    assert str(tmp_path) in said


def test_a_file_that_is_not_text_is_one_sentence(tmp_path):
    (tmp_path / "mine.yaml").write_bytes(b"\xff\xfe\x00PK")
    with pytest.raises(SlimcvError, match="cannot be read as text"):
        recipe.load(str(tmp_path / "mine.yaml"))


def test_an_unknown_name_suggests_the_nearest_recipe():
    with pytest.raises(SlimcvError) as caught:
        recipe.load("cpu_fats")
    assert "cpu_fast" in caught.value.hint


def test_a_missing_file_is_not_taken_for_a_name(tmp_path):
    with pytest.raises(SlimcvError, match="does not exist"):
        recipe.load(str(tmp_path / "none.yaml"))


def test_overrides_reach_parameters_repair_and_gates(tmp_path):
    text = (
        "steps:\n- reduce_resolution: {scale: 0.5}\n"
        "- reduce_resolution: {scale: 0.75}\n  recover: {epochs: 9}"
    )
    loaded = recipe.load(
        written(tmp_path, text),
        overrides=(
            "reduce_resolution.multiple_of=4",
            "reduce_resolution#2.scale=0.8",
            "reduce_resolution#2.recover.epochs=2",
            "gate.max_drop=0.5",
        ),
    )
    first, second = loaded.entries
    assert (first.step.scale, second.step.scale) == (0.5, 0.8)
    assert (first.step.multiple_of, second.step.multiple_of) == (4, 4)
    assert second.recover.epochs == 2
    assert loaded.gate.max_drop == 0.5


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rank=2", "not of the form step.key=value"),
        ("depthwise.rank=2", "no step 'depthwise'"),
        ("fuse_conv_bn#3.absorb=true", "has 1 'fuse_conv_bn'"),
        ("fuse_conv_bn.absrb=true", "unknown key 'absrb' | did you mean 'absorb'?"),
        ("fuse_conv_bn.absorb=[", "the value is not YAML"),
        ("fuse_conv_bn.absorb=2024-02-30", "the value is not YAML"),
    ],
)
def test_a_wrong_override_is_one_sentence(tmp_path, override, expected):
    assert expected in refusal(tmp_path, "steps: [fuse_conv_bn]", override)


def test_the_plan_spells_out_every_parameter(tmp_path):
    plan = recipe.load(written(tmp_path, "steps:\n- depthwise_separable: {rank: 2}")).plan()
    assert plan[0].startswith("1. depthwise_separable {rank: 2, min_channels: ")


def test_every_step_has_a_line_of_its_own():
    for name in recipe.step_names():
        assert recipe.step_summary(name).endswith("."), name


def test_a_typo_in_a_recipe_does_not_pay_for_torch():
    code = (
        "import sys\nfrom slimcv import recipe\nfrom slimcv.errors import SlimcvError\n"
        "[recipe.load(name) for name in recipe.names()]\n"
        "try: recipe.load('cpu_fast', overrides=('finetune.epochs=0',))\nexcept SlimcvError: pass\n"
        "heavy = {'torch', 'numpy', 'onnx', 'onnxruntime', 'openvino'} & set(sys.modules)\n"
        "print(sorted(heavy)); sys.exit(bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_recipe_is_made_for_one_runtime_alone():
    plan = recipe.load("cpu_fast", overrides=("export_onnx.tolerance=0.5",))
    for runtime, exports in (
        ("onnxruntime", ["export_onnx", "export_onnx_int8"]),
        ("openvino", ["export_openvino", "export_nncf"]),
        ("inductor", ["compile"]),
    ):
        entries = plan.with_runtime(runtime).entries
        assert [entry.name for entry in entries if entry.step.stage == Stage.EXPORT] == exports
    assert plan.with_runtime("onnxruntime").entries[-2].step.tolerance == 0.5
    names = [entry.name for entry in recipe.load("cpu_int8").with_runtime("openvino").entries]
    assert names == ["fuse_conv_bn", "quantize_int8", "export_openvino", "export_nncf"]
    assert plan.with_runtime("eager").entries[-1].name == "quantize_int8"
    with pytest.raises(SlimcvError, match="unknown runtime 'opnvino'") as caught:
        plan.with_runtime("opnvino")
    assert "openvino" in caught.value.hint


@pytest.mark.parametrize("name", ["cpu_fast", "cpu_int8", "cpu_narrow"])
def test_recipes_for_latency_try_the_runtimes_own_quantisers_too(name):
    names = [entry.name for entry in recipe.load(name).entries]
    assert names[-5:] == [
        "quantize_int8",
        "export_onnx",
        "export_openvino",
        "export_nncf",
        "export_onnx_int8",
    ]


def test_a_recipe_is_made_for_one_form_of_a_runtime_alone(monkeypatch):
    plan = recipe.load("cpu_int8")
    monkeypatch.setattr(environment, "has_bf16_instructions", lambda: True)
    for name, steps in (
        ("openvino:nncf", ["fuse_conv_bn", "export_openvino", "export_nncf"]),
        ("onnxruntime:qdq", ["fuse_conv_bn", "export_onnx", "export_onnx_int8"]),
        ("openvino:fp32", ["fuse_conv_bn", "export_openvino"]),
        ("inductor:bf16", ["fuse_conv_bn", "compile"]),
        ("eager_channels_last", ["fuse_conv_bn", "quantize_int8"]),
        ("eager_channels_last:bf16", ["fuse_conv_bn"]),
        ("inductor_unfrozen", ["fuse_conv_bn"]),
        ("aotinductor", ["fuse_conv_bn", "quantize_int8", "export_aotinductor"]),
    ):
        made = plan.with_runtime(name)
        assert (made.runtime, [entry.name for entry in made.entries]) == (name, steps)
        assert f"runtime {name}" in made.plan(), "another runtime is another run"
    assert plan.with_runtime("openvino:fp32").entries[-1].step.precision == "f32"
    assert plan.with_runtime("inductor:bf16").entries[-1].step.precision == "bf16"
    assert yardstick(plan.with_runtime("openvino:nncf")) == "openvino"
    assert yardstick(plan.with_runtime("eager_channels_last:bf16")) == "eager_channels_last"


def test_a_form_that_is_not_or_that_this_cpu_does_not_compute_in_is_refused(monkeypatch):
    plan = recipe.load("cpu_int8")
    with pytest.raises(SlimcvError, match="unknown runtime 'openvino:nncv'") as caught:
        plan.with_runtime("openvino:nncv")
    assert "openvino:nncf" in caught.value.hint
    monkeypatch.setattr(environment, "has_bf16_instructions", lambda: False)
    with pytest.raises(SlimcvError, match="no bfloat16 instructions"):
        plan.with_runtime("inductor:bf16")


@pytest.mark.parametrize("name", ["openvino:nncf", "onnxruntime:qdq"])
def test_a_form_that_would_undo_what_the_recipe_gains_is_refused_before_it_is_trained(name):
    plan = recipe.load("cpu_tiny")
    with pytest.raises(
        SlimcvError, match=r"would undo the clusters that .* 'cluster_weights' gains"
    ) as caught:
        plan.with_runtime(name)
    assert caught.value.message.startswith(f"cpu_tiny for {name}: ")
    assert caught.value.hint.startswith(f"take {name.partition(':')[0]}, ")
    for other in ("openvino", "onnxruntime", "openvino:fp32", "eager"):
        assert plan.with_runtime(other).runtime == other


def test_every_name_of_the_table_can_be_asked_for():
    candidates = {f"{runtime}:{form}" for form, names in IN_FLOATS.items() for runtime in names}
    candidates |= {f"{runtime}:bf16" for runtime in FROM_CHECKPOINT}
    assert set(forced.NAMES) == {*runtimes.NAMES, *candidates, "openvino:nncf", "onnxruntime:qdq"}


def test_parameters_reach_every_step_that_has_them_and_unknown_ones_are_told():
    plan = recipe.load("cpu_int8").with_parameters(target_isa="avx2", input_format="float-nchw")
    steps = {entry.name: entry.step for entry in plan.entries}
    assert steps["quantize_int8"].target_isa == "avx2"
    assert steps["export_nncf"].input_format == steps["export_openvino"].input_format == "float-nchw"
    with pytest.raises(SlimcvError, match="no step of the recipe cpu_lossless takes 'target_isa'"):
        recipe.load("cpu_lossless").with_parameters(target_isa="avx2")
    with pytest.raises(SlimcvError, match="avx3"):
        recipe.load("cpu_int8").with_parameters(target_isa="avx3")


LIMITED = """
steps:
  - global_average_pool
  - prune_channels: {steps: 2, memory: 1GB}
    recover: {epochs: 1, memory: 2GB}
  - prune_weights: {sparsity: 0.5}
  - finetune: {epochs: 3}
  - export_onnx
"""


def test_settings_for_training_reach_whatever_trains(tmp_path):
    (tmp_path / "limited.yaml").write_text(LIMITED)
    plan = recipe.load(str(tmp_path / "limited.yaml")).with_training(memory="4GB", checkpoint_every="5s")
    _, channels, weights, finetune, _ = plan.entries
    for trained in (channels.step, channels.recover, weights.step, finetune.step):
        assert (trained.memory, trained.checkpoint_every) == (4_000_000_000, 5.0)
    assert (channels.step.steps, channels.recover.epochs, finetune.step.epochs) == (2, 1, 3)
    with pytest.raises(SlimcvError, match="command line: memory = 'much': a size is like 500MB"):
        plan.with_training(memory="much")


CHAIN = """
steps:
  - prune_weights: {sparsity: 0.5}
  - fuse_conv_bn
  - cluster_weights: {clusters: 16}
  - quantize_int8: {preserve: [sparsity, clusters]}
    recover: {epochs: 1}
  - export_onnx
"""


def test_pruned_clustered_and_quantised_stand_in_a_recipe_that_keeps_each_of_them(tmp_path):
    entries = recipe.load(written(tmp_path, CHAIN)).entries
    assert [entry.trains for entry in entries] == [True, False, True, True, False]
    at_once = recipe.load(written(tmp_path, CHAIN), overrides=("prune_weights.epochs=0",))
    assert not at_once.entries[0].trains


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "steps: [cluster_weights, fuse_conv_bn]",
            "entry 2 'fuse_conv_bn' would undo the clusters that entry 1 'cluster_weights' gains: folding a "
            "BatchNorm multiplies the weights of every channel by a number of its own | put 'fuse",
        ),
        (
            "steps: [cluster_weights, quantize_int8]",
            "a scale for every channel makes several integers of a shared value | give it `preserve: [clus",
        ),
        ("steps: [cluster_weights, quantize_weights]", "makes several integers of a shared value"),
        ("steps: [cluster_weights, export_nncf]", "makes several integers of a shared value | leave one"),
        (
            "steps: [prune_weights, depthwise_separable]",
            "would undo the sparsity that entry 1 'prune_weights' gains: new layers take the place",
        ),
        ("steps: [prune_weights, global_average_pool]", "would undo the sparsity"),
        (
            "steps: [prune_weights, low_rank]",
            "would undo the sparsity that entry 1 'prune_weights' gains: two layers take the place of one",
        ),
        ("steps: [cluster_weights, low_rank]", "would undo the clusters"),
        (
            "steps: [prune_weights, prune_channels]",
            "fitted anew, unless `correct: false` | leave one of the two out, or put 'prune_channels' before",
        ),
        (
            "steps:\n- prune_weights\n- finetune: {preserve: [clusters]}",
            "it trains without `sparsity` in its preserve | give it `preserve: [sparsity]`",
        ),
        (
            "steps:\n- prune_weights\n- fuse_conv_bn: {absorb: true}\n  recover: {preserve: []}",
            "it trains without `sparsity` in its preserve",
        ),
        ("steps:\n- prune_weights\n- cluster_weights: {preserve: []}", "without `sparsity`"),
        (
            "steps:\n- prune_weights\n- quantize_int8: {}\n  recover: {epochs: 1}",
            "trained with its rounding, weights that are zero move | give it `preserve: [sparsity]`",
        ),
        (
            "steps: [{prune_weights: {pattern: '2:4'}}, {prune_channels: {correct: false}}]",
            "entry 2 'prune_channels' would undo the pattern 2:4 that entry 1 'prune_weights' gains: the "
            "inputs that are left move up, so that others are neighbours | put 'prune_channels' before "
            "'prune_weights'",
        ),
        (
            "steps: [{prune_weights: {pattern: 1x4}}, {prune_channels: {correct: false}}]",
            "would undo the pattern 1x4",
        ),
    ],
)
def test_a_stage_that_undoes_what_an_earlier_one_gained_is_refused_with_what_and_why(
    tmp_path, text, expected
):
    assert expected in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "steps",
    [
        "[prune_weights, finetune, fuse_conv_bn, quantize_int8, export_nncf]",
        "[prune_weights, fuse_conv_bn, quantize_weights]",
        "[fuse_conv_bn, cluster_weights, {quantize_weights: {per_channel: false}}]",
        "[prune_weights, {cluster_weights: {preserve: [sparsity]}}]",
        "[low_rank, prune_channels, prune_weights]",
        "[prune_weights, {prune_channels: {correct: false}}]",
    ],
)
def test_what_keeps_it_is_taken(tmp_path, steps):
    assert recipe.load(written(tmp_path, f"steps: {steps}")).entries


FORK = """
steps:
  - global_average_pool
  - either:
      - [depthwise_separable: {rank: 2}]
      - - low_rank
        - prune_channels: {macs: 0.25}
          gate: {max_drop: 5}
  - finetune
  - fuse_conv_bn
  - export_onnx
"""


def test_roads_stand_in_one_list_and_each_entry_knows_its_own(tmp_path):
    plan = recipe.load(written(tmp_path, FORK), overrides=("depthwise_separable.rank=3", "low_rank.rank=8"))
    assert [(entry.name, entry.road and entry.road.number) for entry in plan.entries] == [
        ("global_average_pool", None), ("depthwise_separable", 0), ("low_rank", 1), ("prune_channels", 1),
        ("finetune", None), ("fuse_conv_bn", None), ("export_onnx", None),
    ]  # fmt: skip
    assert (plan.entries[1].step.rank, plan.entries[2].step.rank) == (3, 8)
    assert plan.entries[3].gate.max_drop == 5
    assert [[at for at, _ in road] for road in plan.roads(0)] == [[1], [2, 3]]
    lines = plan.plan()
    assert lines[1].endswith("either, road 1 of 2")
    assert lines[3].endswith("either, road 2 of 2")
    assert "either" not in lines[4]
    assert plan.as_json()[2]["road"] == {"fork": 0, "number": 1, "count": 2}
    assert plan.with_runtime("openvino").entries[1].road == plan.entries[1].road


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps: [either: [[finetune]]]", "entry 1: either needs two or more lists of steps | either: [["),
        ("steps: [either: [[finetune], []]]", "either needs two or more lists of steps"),
        ("steps: [either: finetune]", "either needs two or more lists of steps"),
        ("steps: [{either: [[finetune], [low_rank]], gate: {max_drop: 1}}]", "gate beside either"),
        ("steps: [either: [[finetune], [either: [[finetune], [low_rank]]]]]", "an either within an either"),
        ("steps: [either: [[finetune], [lowrank]]]", "entry 2: unknown step 'lowrank' | did you mean"),
        ("steps: [either: [[finetune], [fuse_conv_bn]]]", "entry 2 'fuse_conv_bn' (fuse) is in an either"),
        (
            "steps: [finetune, either: [[low_rank], [finetune]]]",
            "entry 2 'low_rank' (prune) comes after 'finetune' (train)",
        ),
        (
            "steps: [either: [[low_rank], [prune_weights]], prune_channels]",
            "entry 3 'prune_channels' would undo the sparsity that entry 2 'prune_weights' gains",
        ),
    ],
)
def test_an_either_that_cannot_be_gone_is_refused(tmp_path, text, expected):
    assert expected in refusal(tmp_path, text)


def test_roads_are_checked_each_for_itself(tmp_path):
    """What one road gains is nothing to the other one."""
    text = "steps: [either: [[prune_weights], [prune_channels, low_rank]], finetune]"
    assert len(recipe.load(written(tmp_path, text)).entries) == 4
