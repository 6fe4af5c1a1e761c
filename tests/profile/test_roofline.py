"""Limits of a machine: measured once, kept, and what layers reach of them."""

import dataclasses
import json
import math
import re
import runpy
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from slimcv.profile import profile
from slimcv.profile.groups import gather
from slimcv.profile.layers import Layer
from slimcv.profile.roofline import Demand, Limits, Load, load, measured, reached
from slimcv.profile.roofline import limits as limiting
from slimcv.report import reach, render_profile
from slimcv.report.html.parts import Chart
from slimcv.report.html.profile import page
from slimcv.report.reading import Finished
from slimcv.report.roofline import roofline

LAYER = Layer("conv", "conv", "3×3 convolution", (8, 4, 4), 10, 500_000, 2.0, 1.0)


def drawn(layer, demand, limits, *, precision):
    return reached(layer, load(demand, limits, precision=precision), limits)


def test_a_layer_with_many_products_a_byte_is_bound_by_the_cpu(limits):
    found = drawn(LAYER, Demand(10**8, 1000, 1000), limits, precision="fp32")
    assert found.bound == "compute"
    assert found.roofline_ms == pytest.approx(1.0)
    assert found.roofline_share == pytest.approx(0.5)
    assert found.gflops == pytest.approx(50)
    assert found.intensity == pytest.approx(10**8 / 8000)


def test_a_layer_with_few_products_a_byte_is_bound_by_the_memory(limits):
    found = drawn(LAYER, Demand(1000, 2_000_000, 500_000), limits, precision="fp32")
    assert (found.bound, found.roofline_ms) == ("memory", pytest.approx(1.0))
    assert (found.activation_bytes, found.weight_bytes) == (8_000_000, 2_000_000)


def test_narrower_numbers_raise_the_roof_and_move_fewer_bytes(limits):
    demand = Demand(10**8, 1_000_000, 1_000_000)
    fp32, int8 = (drawn(LAYER, demand, limits, precision=name) for name in ("fp32", "int8"))
    assert int8.activation_bytes == fp32.activation_bytes / 4
    assert int8.roofline_ms == pytest.approx(fp32.roofline_ms / 4)


def test_a_precision_without_fast_kernels_has_the_limit_of_fp32():
    assert Limits(1, 100.0, None, None, 10.0, 0.0).gflops("bf16") == 100.0


def test_a_probe_finds_positive_limits_in_a_short_time():
    found = limiting.probe(threads=1, seconds=0.01)
    assert found.fp32_gflops > 0
    assert found.memory_gbytes > 0
    assert found.bf16_gflops is None or found.bf16_gflops > 0


def test_a_probe_ends_in_ten_seconds():
    constants = runpy.run_path(limiting.__file__)
    assert constants["PARTS"] * constants["SECONDS"] <= constants["MOST_SECONDS"] / 2
    assert constants["MOST_SECONDS"] <= 10


@pytest.mark.parametrize(("deadline", "calls"), [(float("inf"), 4), (0.0, 2)])
def test_a_slow_machine_is_read_less_often(deadline, calls):
    made = []
    assert limiting._rate(1, lambda: made.append(1), limiting.Clock(0.0, deadline)) > 0
    assert len(made) == calls


@pytest.fixture
def clock(monkeypatch):
    """The readings of a clock that goes on by 50 ms whenever it is looked at."""
    readings = []

    def look():
        readings.append(len(readings) / 20)
        return readings[-1]

    monkeypatch.setattr(limiting, "perf_counter", look)
    return readings


def test_limits_are_kept_for_each_number_of_threads_and_only_grow(tmp_path):
    measured(threads=1, folder=tmp_path)
    (place,) = (tmp_path / "limits").iterdir()
    kept = {**json.loads(place.read_text()), "fp32_gflops": 1e9, "memory_gbytes": 1e-9, "seconds": 7.0}
    place.write_text(json.dumps(kept))
    again = measured(threads=1, folder=tmp_path)
    assert (again.fp32_gflops, again.seconds) == (1e9, 7.0)
    assert again.memory_gbytes > 0.01
    assert json.loads(place.read_text()) == dataclasses.asdict(again)
    assert measured(threads=2, folder=tmp_path).threads == 2
    assert len(list((tmp_path / "limits").iterdir())) == 2


def test_limits_that_are_known_are_looked_at_again_for_a_shorter_time(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(limiting, "SECONDS", 0.5)
    measured(threads=1, folder=tmp_path)
    first = len(clock)
    measured(threads=1, folder=tmp_path)
    assert 0 < len(clock) - first < first


def test_limits_that_cannot_be_read_are_measured_anew(tmp_path, clock):
    first = measured(threads=1, folder=tmp_path)
    (kept,) = (tmp_path / "limits").iterdir()
    for damaged in ("", "{}", json.dumps({**json.loads(kept.read_text()), "fp32_gflops": "fast"})):
        kept.write_text(damaged)
        clock.clear()
        assert measured(threads=1, folder=tmp_path) == first
        assert json.loads(kept.read_text()) == dataclasses.asdict(first)


def test_every_layer_that_multiplies_has_a_rate_and_a_place_under_the_roof(gated, limits):
    found = profile(gated, threads=1, limits=limits, extras=False)
    for layer in found.layers:
        assert (layer.gflops is not None) == (layer.macs > 0)
    stem = found.layers[0]
    moved = 4 * (3 * 32 * 32 + 16 * 16 * 16)
    assert (stem.activation_bytes, stem.weight_bytes) == (moved, 4 * (3 * 16 * 9 + 16))
    assert stem.gflops == pytest.approx(2 * stem.macs / stem.ms / 1e6)


def test_the_picture_is_well_formed_has_every_layer_and_leaves_names_as_text(gated, limits):
    values = profile(gated, threads=1, limits=limits, extras=False).as_json()
    values["layers"][0]["name"] = "<script>&"
    root = ElementTree.fromstring(roofline(values))
    space = "{http://www.w3.org/2000/svg}"
    dots = root.findall(f"{space}circle")
    assert len(dots) == sum(layer["macs"] > 0 for layer in values["layers"])
    assert any("<script>&" in (dot.findtext(f"{space}title") or "") for dot in dots)
    for dot in dots:
        assert 0 < float(dot.get("cx")) < 760
        assert 0 < float(dot.get("cy")) < 440


def test_the_slope_of_the_memory_begins_where_it_comes_into_the_picture(gated, limits):
    low = {"intensity": 0.5, "gflops": 50.0, "bound": "memory", "roofline_share": 0.5}
    values = profile(gated, threads=1, limits=limits, extras=False).as_json()
    values["layers"] = [{**layer, **low} for layer in values["layers"] if layer["gflops"]]
    for line in ElementTree.fromstring(roofline(values)).iter("{http://www.w3.org/2000/svg}polyline"):
        (x0, y0), (x1, y1), _ = (map(float, at.split(",")) for at in line.get("points").split())
        decade_x = (760 - 110) / (math.log10(100 / 0.5) + 0.4)
        decade_y = (440 - 110) / (math.log10(400 / 50) + 0.4)
        assert (y0 - y1) / decade_y == pytest.approx((x1 - x0) / decade_x, abs=0.01)


def test_a_block_stands_under_the_roof_with_all_that_its_layers_ask_for(gated, limits):
    found = profile(gated, threads=1, limits=limits, extras=False)
    block = next(group for group in found.by_block if group.kind == "blocks.0")
    members = [layer for layer in found.layers if layer.block == "blocks.0"]
    assert block.activation_bytes == sum(layer.activation_bytes for layer in members)
    assert block.weight_bytes == sum(layer.weight_bytes for layer in members)
    moved = block.activation_bytes + block.weight_bytes
    assert block.intensity == pytest.approx(2 * block.macs / moved)
    assert block.gflops == pytest.approx(2 * block.macs / block.ms / 1e6)
    compute_ms, memory_ms = 2 * block.macs / (1e6 * 100.0), moved / (1e6 * 10.0)
    assert block.roofline_ms == pytest.approx(max(compute_ms, memory_ms))
    assert block.roofline_share == pytest.approx(block.roofline_ms / block.ms)
    assert block.bound == ("compute" if compute_ms >= memory_ms else "memory")


def test_a_group_of_one_layer_reaches_what_the_layer_does(limits):
    demand = Demand(10**8, 1_000_000, 1_000_000)
    layer = drawn(LAYER, demand, limits, precision="int8")
    (group,) = gather([layer], {"conv": load(demand, limits, precision="int8")}, limits)
    for key in ("activation_bytes", "weight_bytes", "intensity", "gflops", "roofline_share", "bound"):
        assert getattr(group, key) == getattr(layer, key)


def test_maps_between_merged_layers_are_not_moved_though_their_products_are_made(limits):
    merged = dataclasses.replace(LAYER, node="next", ms=0.0, share=0.0, merged_into="conv")
    asked = {"conv": Load(10, 400, 40, 0.5), "next": Load(6, 300, 20, 0.25)}
    (group,) = gather([LAYER, merged], asked, limits)
    assert (group.activation_bytes, group.weight_bytes) == (400, 60)
    assert group.gflops == pytest.approx(16 / 2.0 / 1e6)
    assert group.roofline_ms == 0.75


def test_every_form_tells_what_layers_and_blocks_move_and_reach(gated, limits):
    values = profile(gated, threads=1, limits=limits, extras=False).as_json()
    block = next(group for group in values["by_block"] if group["kind"] == "blocks.0")
    stem = values["layers"][0]
    for format in ("text", "markdown"):
        text = render_profile(values, format)
        assert max(map(len, text.splitlines())) <= 80 or format == "markdown"
        for cost in (block, stem):
            wanted = [*reach.cells(cost)]
            name = cost["kind"] if cost is block else cost["name"]
            lines = [re.split(r"\s*\|\s*|\s{2,}", line.strip(" |")) for line in text.splitlines()]
            assert any(line[0] == name and line[-4:] == wanted for line in lines), (format, name)
            assert any(line[0] == name and reach.of_limit(cost) in line for line in lines), (format, name)
    shown = page(Finished("profile", Path("report.html"), values))
    tables = [part.table for section in shown.sections for part in section.blocks if isinstance(part, Chart)]
    for caption, cost in (("Every block", block), ("Every layer", stem)):
        (table,) = [one for one in tables if one.caption == caption]
        assert table.headings[-5:] == (*reach.HEADINGS, "of limit")
        row = next(row for row in table.rows if row[0].text in (cost.get("name"), cost["kind"]))
        assert [cell.text for cell in row[-5:]] == [*reach.cells(cost), reach.of_limit(cost)]
