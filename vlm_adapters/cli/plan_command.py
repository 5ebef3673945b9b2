"""`adapters plan`: what a recipe will take, before it begins."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer
from rich.filesize import decimal

from vlm_adapters.cli.arguments import Changes, JsonOption, RecipeName, read_recipe
from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.cli.tables import print_rows


def command(
    recipe: RecipeName,
    changes: Changes = None,
    *,
    samples: Annotated[int, typer.Option(help="Samples of each data set to measure on.", min=1)] = 16,
    as_json: JsonOption = False,
) -> None:
    """Say size and time of the caches of RECIPE, by running the backbone on the first samples of its data.

    Time is that of this machine, without the loading of the model. Nothing is
    written.
    """
    content = read_recipe(recipe, changes)
    from vlm_adapters.training.cache.forecast import forecast

    found = forecast(content, samples)
    if as_json:
        print_json([one.as_dict() for one in found])
        return
    rows = [
        (
            one.data,
            one.samples,
            decimal(one.bytes),
            "there already" if one.finished else str(timedelta(seconds=round(one.seconds))),
            one.folder,
        )
        for one in found
    ]
    print_rows(f"Caches of {recipe}", ("data", "samples", "size", "time", "folder"), rows, ("samples", "size"))
    measured = sum(one.measured for one in found)
    if measured:
        line(f"Measured on {measured} samples; phrases and images of the others may be larger or smaller.")
