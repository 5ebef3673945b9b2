"""Discover the layouts of every family that has an adapter, and compare them with the published rules.

    python examples/lab/measure_discovery.py [--families NAME ...] [--report FILE]

The model of each family is the tiny random one of its case, and the trained one where a checkpoint is embedded. The
processor is the stock one. A layout is exact if every token stands in its cell and every side of every grid lies
within a quarter of a cell of the published rule. Takes about six minutes on two cores.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from discovery_refused import refused_models
from PIL import Image
from report import RESULTS, write_report

from vlm_adapters import ImageLayout, Prompt, TransformersBackbone, list_adapters, load_adapter
from vlm_adapters.discovery import discover_layouts
from vlm_adapters.discovery.model import SizeReport
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.testing import AdapterCase, ExpectedGrid

CLOSE = 0.25
"""Share of a cell within which a side is exact."""


@dataclass
class Family:
    """A family to discover: its adapter, the rule of its stock processor, and the name of the row."""

    name: str
    adapter: TransformersBackbone
    rule: Any


def families(names: Sequence[str]) -> Iterator[Family]:
    """The tiny models of all adapters, and the embedded ones."""
    cases = {}
    for entry in list_adapters():
        if entry.spec and entry.spec.case and not entry.broken and not entry.needs:
            module, name = entry.spec.case.split(":")
            try:
                cases[entry.spec.name] = getattr(import_module(module), name)
            except (ImportError, AttributeError) as error:
                print(f"{entry.spec.name}: no case ({error})")
    for name, case in cases.items():
        if not names or name in names:
            yield Family(name, *with_stock_processor(case, case.load()))
    for name in embedded_checkpoints():
        if not names or name in names:
            adapter = load_adapter(name, device="cpu", dtype="float32")
            yield Family(f"{name} (trained)", *with_stock_processor(cases[adapter.name], adapter))


def with_stock_processor(case: AdapterCase, adapter: Any) -> tuple[TransformersBackbone, Any]:
    """The adapter, and the rule of its stock processor where the adapter does something else."""
    if adapter.name == "llava":  # the adapter centres images on a square instead of cropping them
        images = adapter.processor.image_processor
        side = images.crop_size["height"]
        images.do_resize = images.do_center_crop = True
        images.size = (
            type(images.size)(shortest_edge=side) if not isinstance(images.size, dict) else {"shortest_edge": side}
        )
        return adapter, lambda size: [cropped(size, side, side // adapter.processor.patch_size)]
    if adapter.name == "fuyu":  # the stock processor drops a first token, which the published tokenizer always writes
        tokenizer = adapter.processor.tokenizer
        tokenizer.__class__ = type("WithFirstToken", (FirstToken, type(tokenizer)), {})
    trained = adapter.info.checkpoint in map(str, embedded_checkpoints().values())
    return adapter, (lambda size: adapter_rule(adapter, size)) if trained else case.expected_grids


class FirstToken:
    """A tokenizer that writes a token before every text, as the published one of Fuyu writes an underscore."""

    def __call__(self, text: str, **options: Any) -> Any:
        """Encode a text."""
        found = super().__call__(text, **options)  # type: ignore[misc]
        for name, first in (("input_ids", self.convert_tokens_to_ids("<s>")), ("attention_mask", 1)):  # type: ignore[attr-defined]
            found[name] = torch.cat([torch.full_like(found[name][..., :1], first), found[name]], dim=-1)
        return found


def cropped(size: tuple[int, int], side: int, cells: int) -> ExpectedGrid:
    """The square in the middle of an image whose short side was resized to `side`."""
    short = min(size)
    resized = [side if length == short else int(side * length / short) for length in size]
    top, left = ((length - side) // 2 for length in resized)
    down, across = (length / new for length, new in zip(size, resized, strict=True))
    return ExpectedGrid((cells, cells), (left * across, top * down, (left + side) * across, (top + side) * down))


def adapter_rule(adapter: TransformersBackbone, size: tuple[int, int]) -> list[ExpectedGrid]:
    """The layouts of an adapter that passed the suite, for checkpoints with other sizes than the case's."""
    return [ExpectedGrid(layout.cells, layout.box, layout.name) for layout in adapter.layouts([size])[0]]


def judge(found: SizeReport, expected: Sequence[ExpectedGrid], family: Family) -> str:
    """`exact`, or what is wrong with the layouts of a size."""
    grids = sorted(found.layouts, key=lambda layout: -_area(layout.box, layout.cells))
    rule = sorted(expected, key=lambda grid: -_area(grid.box, grid.shape))
    if [grid.cells for grid in grids] != [grid.shape for grid in rule]:
        return f"grids {[grid.cells for grid in grids]}, expected {[grid.shape for grid in rule]}"
    apart = max(_apart(grid, of_rule) for grid, of_rule in zip(grids, rule, strict=True))
    if apart >= CLOSE:
        return f"a side is {apart:.2f} cells off"
    return "exact" if _tokens_agree(found, family) else "tokens stand in other cells"


def _apart(layout: ImageLayout, rule: ExpectedGrid) -> float:
    """The most that a side of any cell is off, in cells."""
    grid = layout.grid(torch.arange(layout.token_count), 0)
    diagonal = [(min(i, rule.shape[0] - 1), min(i, rule.shape[1] - 1)) for i in range(max(rule.shape))]
    most = 0.0
    for cell in diagonal:
        found, expected = grid.cell_box(*cell), rule.cell_box(*cell)
        width, height = expected[2] - expected[0], expected[3] - expected[1]
        sides = zip(found, expected, (width, height, width, height), strict=True)
        most = max(most, *(abs(a - b) / unit for a, b, unit in sides))
    return most


def _tokens_agree(found: SizeReport, family: Family) -> bool:
    """Whether the cells have the same order among the image's cells as in the adapter's grids."""
    if family.adapter.name in ("llava", "fuyu"):
        return (
            True  # one grid, row by row, with shape and place compared above; the adapter's prompt is not the stock one
        )
    width, height = found.size[1], found.size[0]
    inputs = family.adapter.preprocess([Prompt.describe(Image.new("RGB", (width, height)), "a thing")])
    (grids,) = family.adapter.locate_image_tokens(inputs)
    order = torch.cat([grid.tokens.flatten() for grid in grids]).sort().values
    truth = {grid.name: torch.searchsorted(order, grid.tokens.contiguous()) for grid in grids}
    counted = [layout.grid(torch.arange(layout.token_count) + start, 0) for layout, start in _starts(found)]
    cells = torch.cat([grid.tokens.flatten() for grid in counted]).sort().values
    return all(
        torch.equal(truth[grid.name], torch.searchsorted(cells, grid.tokens.contiguous()))
        for grid in counted
        if grid.name in truth
    ) and set(truth) == {grid.name for grid in counted}


def _starts(found: SizeReport) -> Iterator[tuple[Any, int]]:
    start = 0
    for layout in found.layouts:
        yield layout, start
        start += layout.token_count


def _area(box: Sequence[float], shape: Sequence[int]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1]) / (shape[0] * shape[1])


def measure(family: Family) -> dict[str, object]:
    """Discover one family."""
    adapter = family.adapter
    report = discover_layouts(adapter.model, adapter.processor)
    verdicts = {
        size.size: judge(size, family.rule(size.size), family) if size.layouts else size.problem
        for size in report.sizes
    }
    found = [size for size in report.sizes if size.found]
    rule = report.found.rule if report.found else None
    return {
        "family": family.name,
        "sizes": len(report.sizes),
        "found": len(found),
        "exact": sum(verdicts[size.size] == "exact" for size in found),
        "wrong": sum(verdicts[size.size] != "exact" for size in found),
        "least score": round(min((size.score for size in found), default=0), 3),
        "passes per size": max(size.passes for size in report.sizes),
        "rule": "probed" if rule is None else f"{rule.feature or 'fixed cells'}, {rule.region}",
        "not exact": {
            f"{width}x{height}": size.problem or verdict
            for size in report.sizes
            if (verdict := verdicts[size.size]) != "exact" or not size.found
            for height, width in [size.size]
        },
    }


def main() -> None:
    """Measure, print, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="*", default=[], help="only these")
    parser.add_argument("--report", type=Path, default=RESULTS / "discovery.json", help="file to write")
    options = parser.parse_args()
    rows = []
    for family in families(options.families):
        rows.append(measure(family))
        print(*(f"{name}: {value}" for name, value in rows[-1].items()), sep="; ", flush=True)
    refused = []
    for name, model, processor in refused_models(options.families):
        sizes = discover_layouts(model, processor).sizes
        refused.append({"family": name, "found": sum(size.found for size in sizes), "reason": sizes[0].problem})
        print(*(f"{name}: {value}" for name, value in refused[-1].items()), sep="; ", flush=True)
    sizes, exact = sum(row["sizes"] for row in rows), sum(row["exact"] for row in rows)
    wrong = sum(row["wrong"] for row in rows) + sum(row["found"] for row in refused)
    print(f"{exact} of {sizes} exact ({exact / sizes:.1%}), {wrong} found wrongly")
    totals = {"sizes": sizes, "exact": exact, "share exact": round(exact / sizes, 4), "found wrongly": wrong}
    write_report(options.report, {**totals, "families": rows, "refused": refused})


if __name__ == "__main__":
    main()
