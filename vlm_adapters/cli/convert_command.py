"""`adapters convert`: decoders that others trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlm_adapters.cli.printing import line, print_error
from vlm_adapters.cli.tables import print_rows

if TYPE_CHECKING:
    from vlm_adapters.decoder.flmm import Difference


def command(
    kind: Annotated[Literal["flmm"], typer.Argument(metavar="KIND", help="Whose checkpoint it is.")],  # noqa: ARG001 - there is one
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="The file (.pth).", show_default=False)],
    *,
    backbone: Annotated[
        str,
        typer.Option(help="The backbone it was trained on: an adapter's name or a hub id.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the decoder.", show_default=False)],
) -> None:
    """Give a published checkpoint our names: a decoder's folder for `ground --model`.

    flmm: the trained tensors of F-LMM, that is U-Net, text projection, layer
    weights, and the prompt encoder and mask decoder of Segment Anything ViT-L.
    A missing, surplus or misshapen tensor is listed, and nothing is written. No
    code in the file is run, and no weights of the backbone are needed.
    """
    from vlm_adapters.decoder.flmm import compare_flmm, read_flmm, write_flmm
    from vlm_adapters.registry.loading import published_info

    weights, info = read_flmm(checkpoint), published_info(backbone)
    if differences := compare_flmm(weights, info):
        _print(differences)
        fits = f"{info.channels} channels, width {info.hidden_size}, {info.num_layers} layers"
        print_error(
            f"{len(differences)} tensors of {checkpoint} are not those for {info.checkpoint} ({fits}). Nothing "
            "was written. Name the backbone that it was trained on."
        )
        raise typer.Exit(1)
    with _decoder_folder(out) as folder:
        write_flmm(weights, info, folder)
    line(f"{out}: {sum(tensor.numel() for tensor in weights.values()):,} numbers, trained on {info.checkpoint}")
    line(f"Next: adapters ground IMAGE TEXT --model {out} --sam sam_vit_l_0b3195.pth")


@contextmanager
def _decoder_folder(out: Path) -> Iterator[Path]:
    """Yield where to write: a new folder appears when it is complete, and one with files gets them one by one."""
    from vlm_adapters.data.files import whole_folder
    from vlm_adapters.data.locks import locked_folder, locked_name

    if out.is_dir() and any(out.iterdir()):
        with locked_folder(out):
            yield out
    else:
        with locked_name(out), whole_folder(out) as folder:
            yield folder


def _print(differences: list[Difference]) -> None:
    rows = [
        (
            difference.name,
            *("none" if shape is None else str(shape) for shape in (difference.expected, difference.found)),
        )
        for difference in differences
    ]
    print_rows(None, ("tensor", "expected", "found"), rows)
