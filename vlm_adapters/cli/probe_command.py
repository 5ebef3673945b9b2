"""`adapters probe`: what an adapter does to images and text."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING

from vlm_adapters.cli.arguments import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    QuantizationOption,
    RevisionOption,
)
from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.cli.tables import print_facts, print_rows, shape, size

if TYPE_CHECKING:
    from vlm_adapters.inspection.configs import TowerReport
    from vlm_adapters.inspection.interface import ImageReport, InterfaceReport, LayerReport


def command(
    model: ModelArgument,
    *,
    revision: RevisionOption = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run MODEL on blank images and report its interface.

    The report shows classes, kernels, special tokens, the tokens of images of several
    sizes, the tensors of the forward pass, attention and hidden states of every
    layer, and the vision tower. Sizes are height x width.
    """
    from vlm_adapters.inspection.interface import probe
    from vlm_adapters.registry.loading import load_adapter

    with redirect_stdout(sys.stderr):  # what a plugin prints must not spoil the JSON
        adapter = load_adapter(
            model,
            device=device,
            dtype=dtype,
            revision=revision,
            attn_implementation=attn_implementation,
            quantization_config=quantization,
        )
        report = probe(adapter)
    if as_json:
        print_json(asdict(report), indent=2)
    else:
        _print(report)


def _print(report: InterfaceReport) -> None:
    line(f"{report.adapter} from {report.checkpoint}", style="bold")
    revision = [("revision", report.revision)] if report.revision else []
    print_facts("Classes", [*asdict(report.classes).items(), *revision])
    kernels = [(tower.name.removesuffix("_config"), tower.kernel) for tower in report.vision]
    weights = ("weights", f"{report.dtype} on {report.device}" if report.dtype else None)
    print_facts("Attention kernels", [("text", report.text.kernel), *kernels, weights])
    print_rows(
        "Special tokens",
        ("role", "id", "token", "said by"),
        [(token.role, str(token.id), token.token, token.said_by) for token in report.special_tokens],
        numbers=("id",),
    )
    print_rows(
        f"Images (height x width in pixels; a cell of the grid: {size(report.cell)} resized pixels)",
        ("image", "resized", "patches", "tokens", "grid"),
        [_image_row(image) for image in report.images],
        numbers=("image", "resized", "patches", "tokens", "grid"),
    )
    for image in report.images:
        if image.problem:
            line(f"{size(image.image)}: {image.problem}", style="red")
    print_rows(
        f"Tensors of one prompt: {report.trial_text!r} and a blank {size(report.trial_image)} image",
        ("name", "dtype", "shape"),
        [(tensor.name, tensor.dtype, shape(tensor.shape)) for tensor in report.tensors],
    )
    text = {name.replace("_", " "): value for name, value in asdict(report.text).items() if name != "kernel"}
    print_facts("Language model", text.items())
    print_rows(
        "Layers in its forward pass (attention: heads x grid; hidden: width x grid)",
        ("layer", "kind", "heads", "width", "grid", "on image"),
        [_layer_row(layer) for layer in report.layers],
        numbers=("layer", "heads", "width", "grid", "on image"),
    )
    for tower in report.vision:
        _print_tower(tower)


def _image_row(image: ImageReport) -> tuple[object, ...]:
    if image.problem:
        return size(image.image), "refused", None, None, None
    resized = size(image.resized) if image.tiles == 1 else f"{image.tiles} of {size(image.resized)}"
    return size(image.image), resized, image.patches, image.tokens, " + ".join(map(size, image.grids))


def _layer_row(layer: LayerReport) -> tuple[object, ...]:
    heads, width = (shapes[0][0] if shapes else None for shapes in (layer.attention, layer.hidden))
    grids = " + ".join(size((h, w)) for _, h, w in layer.hidden)
    share = None if layer.on_image is None else f"{layer.on_image:.0%}"
    return str(layer.index), layer.kind, heads, width, grids, share


def _print_tower(tower: TowerReport) -> None:
    facts = [("type", tower.model_type), *tower.sizes.items(), *tower.more.items()]
    print_facts(f"Vision ({tower.name})", facts)
