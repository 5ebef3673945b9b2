"""`adapters cache`: what decoders read of a backbone, computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from vlm_adapters.cli.arguments import Changes, JsonOption, RecipeName, read_recipe
from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.cli.progress import ProgressBars

if TYPE_CHECKING:
    from vlm_adapters.training.cache.index import CacheIndex
    from vlm_adapters.training.data import CacheLocation

group = typer.Typer(add_completion=False)


@group.callback()
def _group() -> None:
    """Build caches of maps, hidden states and geometry, from which decoders are trained without the backbone."""


@group.command()
def build(
    recipe: RecipeName,
    changes: Changes = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Run the backbone of RECIPE over its data once, and keep what its decoder reads.

    Resumes where it was interrupted, at any time. What is there already is
    compared, sample by sample and byte by byte, and stays if it is the same.
    `adapters plan RECIPE` says size and time before. Any data and model will do:
    adapters cache build scenes model=MODEL train=DATA validation=null cache=FOLDER

    On several GPUs: accelerate launch -m vlm_adapters cache build ...
    """
    from vlm_adapters.training.cache.index import CacheIndex

    with ProgressBars() as bars:
        content = read_recipe(recipe, changes)
        from vlm_adapters.training.data import build_caches, process_of

        process = process_of(content)
        caches = build_caches(content, report=bars.built)
        process.finish()
    if not process.is_first:
        return
    indices = [CacheIndex.read(cache.folder) for cache in caches]
    if as_json:
        print_json([_as_dict(cache, index) for cache, index in zip(caches, indices, strict=True)])
        return
    for cache, index in zip(caches, indices, strict=True):
        line(f"{cache.folder}: {len(index.ids)} samples, {sum(index.phrases)} phrases, {index.bytes:,} bytes")
        for left in index.left_out:
            line(f"  left out: {left.message}")


def _as_dict(cache: CacheLocation, index: CacheIndex) -> dict[str, object]:
    return {
        "folder": str(cache.folder),
        "data": cache.data.source,
        "samples": len(index.ids),
        "phrases": sum(index.phrases),
        "bytes": index.bytes,
        "left_out": [left.message for left in index.left_out],
    }
