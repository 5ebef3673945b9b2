"""Discovery on real classes: every shape of layout is found, and what has no grid is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vlm_adapters import Prompt, TransformersBackbone
from vlm_adapters.cli import app
from vlm_adapters.discovery import DiscoveredBackbone, Discoverer, discover_layouts
from vlm_adapters.errors import BackboneError, OutputError, UnknownAdapterError
from vlm_adapters.testing import cases_of_project, checks_named, find_case, run_checks

LAB = Path(__file__).parents[2] / "examples" / "lab"
CHECKS = (
    "check_grid_shapes",
    "check_cell_boxes",
    "check_orientation",
    "check_rows_equal_eager",
    "check_several_images",
    "check_left_padded_batch_equals_samples",
    "check_spawned_process",
)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("gemma3", (84, 252)),
        ("deepseek_vl", (133, 211)),
        ("qwen2_5_vl", (133, 211)),
        ("mistral3", (84, 252)),
        ("internvl", (133, 211)),
        ("smolvlm", (84, 252)),
        ("llava_next", (133, 211)),
        ("minicpmv4_6", (133, 211)),
        ("cogvlm", (84, 252)),
    ],
)
def test_the_layout_of_a_stock_processor_is_found(name: str, size: tuple[int, int]) -> None:
    adapter = find_case(name).load()
    assert isinstance(adapter, TransformersBackbone)
    report = discover_layouts(adapter.model, adapter.processor, [size])
    assert report.found is not None
    found = {layout.name: layout for layout in report.found.layouts[size]}
    expected = {grid.name: grid for grid in find_case(name).expected_grids(size)}
    assert {grid: layout.cells for grid, layout in found.items()} == {
        name: grid.shape for name, grid in expected.items()
    }
    for grid, layout in found.items():
        cells = layout.grid(torch.arange(layout.token_count), 0)
        last = layout.cells[0] - 1, layout.cells[1] - 1
        for cell in ((0, 0), last):
            left, top, right, bottom = expected[grid].cell_box(*cell)
            apart = zip(cells.cell_box(*cell), expected[grid].cell_box(*cell), strict=True)
            assert max(abs(a - b) for a, b in apart) < 0.25 * min(right - left, bottom - top)


def test_only_the_vision_side_runs() -> None:
    adapter: Any = find_case("qwen2_5_vl").load()
    ran: list[str] = []
    adapter.model.get_decoder().layers[0].register_forward_hook(lambda *_: ran.append("a layer of the language model"))
    Discoverer(adapter.model, adapter.processor).discover((84, 112))
    assert ran == []


@pytest.mark.parametrize("checkpoint", ["tiny-deepseek_vl", "tiny-qwen2_5_vl"])
def test_a_plugin_of_data_passes_the_suite(checkpoint: str, tmp_path: Path) -> None:
    command = ["discover", checkpoint, "--out", str(tmp_path / "project"), "--device", "cpu"]
    for size in ("112x112", "252x84", "100x130"):
        command += ["--size", size]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "All follow one rule" in done.output
    (case,) = cases_of_project(tmp_path / "project")
    results = {result.check: result for result in run_checks(case, checks_named(CHECKS))}
    assert {name: results[name].reason for name in CHECKS if results[name].state != "passed"} == {}


def test_an_adapter_of_data_probes_a_size_that_no_rule_covers() -> None:
    adapter: Any = find_case("internvl").load()
    report = discover_layouts(adapter.model, adapter.processor, [(112, 112)])

    class Discovered(DiscoveredBackbone):
        found = report.found  # type: ignore[assignment]
        grid_names = ("overview", "fine")

    data = Discovered(adapter.model, adapter.processor)
    prompt = Prompt.describe(Image.new("RGB", (211, 133)), "a")
    theirs, ours = (one.locate_image_tokens(one.preprocess([prompt]))[0] for one in (adapter, data))
    assert [(grid.name, grid.tokens.tolist()) for grid in ours] == [
        (grid.name, grid.tokens.tolist()) for grid in theirs
    ]


@pytest.mark.parametrize(("name", "reason"), [("idefics2", "a resampler"), ("mllama", "cross-attention")])
def test_what_has_no_grid_is_not_found(name: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(LAB))
    refused = __import__("discovery_refused")
    model, processor = getattr(refused, name)()
    report = discover_layouts(model, processor, [(112, 112), (84, 252)])
    assert report.found is None
    assert all(reason in size.problem for size in report.sizes)
    sys.modules.pop("discovery_refused")


def test_the_command_refuses_known_families_before_anything_is_loaded() -> None:
    done = CliRunner().invoke(app, ["discover", "Salesforce/blip2-opt-2.7b"])
    assert isinstance(done.exception, UnknownAdapterError)
    assert "Q-Former" in str(done.exception)


def test_the_command_says_so_where_nothing_is_proven() -> None:
    done = CliRunner().invoke(app, ["discover", "tiny-llava", "--size", "100x60", "--device", "cpu"])
    assert isinstance(done.exception, BackboneError)
    assert "No layout of tiny-llava is proven" in str(done.exception)


def test_no_folder_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    done = CliRunner().invoke(app, ["discover", "tiny-deepseek_vl", "--out", str(tmp_path)])
    assert isinstance(done.exception, OutputError)
