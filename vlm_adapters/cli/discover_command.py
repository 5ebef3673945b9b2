"""`adapters discover`: the layouts of a model without an adapter, found by probing, as a plugin of data."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_adapters.cli.arguments import DeviceOption, JsonOption, ModelArgument, RevisionOption, image_size
from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.errors import BackboneError

if TYPE_CHECKING:
    from vlm_adapters.discovery.found import FoundLayouts
    from vlm_adapters.discovery.model import SizeReport


def command(
    model: ModelArgument,
    *,
    size: Annotated[
        list[str] | None, typer.Option("--size", help="WIDTHxHEIGHT of an image to probe. Repeat for more.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for a plugin of the proven layouts; new or empty.")
    ] = None,
    revision: RevisionOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Find how MODEL of transformers lays images out in tokens, without an adapter.

    Ramps of brightness show which pixels come from where, small changes of them which
    token shows them; only the vision side runs, in float32. What is found is proven on
    single cells of textures, at the borders and in the padding too.

    Exits with 1 if nothing is proven.
    """
    from vlm_adapters.discovery.model import SIZES, discover_layouts
    from vlm_adapters.discovery.plugin import check_free, write_plugin
    from vlm_adapters.hf import TransformersBackbone
    from vlm_adapters.hf.pretrained import load_pretrained
    from vlm_adapters.registry.checkpoints import find_checkpoint

    sizes = [image_size(text) for text in size] if size else list(SIZES)
    if out is not None:
        check_free(out)
    with redirect_stdout(sys.stderr):  # what loading prints must not spoil the JSON
        checkpoint = find_checkpoint(model, revision=revision)
        loaded = load_pretrained(
            checkpoint.location,
            device=device,
            dtype="float32",
            revision=revision,
            trust_remote_code=False,
            loader={"auto_model": TransformersBackbone.auto_model, "config_class": TransformersBackbone.config_class},
        )
        report = discover_layouts(
            loaded.model, loaded.processor, sizes, report=(lambda _: None) if as_json else _print_size
        )
    if as_json:
        print_json(asdict(report), indent=2)
    if report.found is None and as_json:
        raise typer.Exit(1)
    if report.found is None:
        raise BackboneError(f"No layout of {model} is proven: {report.sizes[0].problem}")
    if not as_json:
        _print_rule(report.found)
    if out is not None:
        for file in write_plugin(report.found, checkpoint.location, out):
            line(str(file))
        line(f"Next: pip install --editable {out}, adapters check {report.model_type}")


def _print_size(report: SizeReport) -> None:
    height, width = report.size
    grids = ", ".join(f"{layout.name} {layout.cells[0]} x {layout.cells[1]}" for layout in report.layouts)
    state = "proven" if report.found else "not proven"
    text = f"{width}x{height}: {grids or 'no grid'}; {state}, score {report.score:.2f} by {report.cells_tried} cells"
    line(text, style="green" if report.found else "yellow")
    if report.problem:
        line(f"  {report.problem}")


def _print_rule(found: FoundLayouts) -> None:
    if found.rule is None:
        line("No rule covers other sizes: the adapter probes each when it is first used.")
        return
    cells = (
        "as many cells as the processor's " + found.rule.feature if found.rule.feature else f"{found.rule.cells} cells"
    )
    line(f"All follow one rule: {cells}, over the {found.rule.region}.")
