"""`adapters train`: a decoder over a frozen backbone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_adapters.cli.arguments import Changes, JsonOption, read_recipe
from vlm_adapters.cli.completion import recipe_names as complete_recipe
from vlm_adapters.cli.printing import line, print_json
from vlm_adapters.cli.progress import ProgressBars
from vlm_adapters.cli.signals import SIGTERM_EXIT
from vlm_adapters.errors import RecipeError

if TYPE_CHECKING:
    from vlm_adapters.training.checkpoint import RunState


def command(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A recipe's name (--list) or YAML file.",
            show_default=False,
            autocompletion=complete_recipe,
        ),
    ] = None,
    changes: Changes = None,
    *,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the run.")] = Path("run"),
    list_recipes: Annotated[bool, typer.Option("--list", help="List the recipes that come with the library.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train the decoder of RECIPE over a frozen backbone, from a cache of its maps or with it in the loop.

    Caches that the recipe names are built where they are missing. The run is
    saved in --out: checkpoints, `best` (give it to `ground --model`), log.jsonl,
    tensorboard and figures. The same command resumes a run that was
    interrupted; SIGTERM and Ctrl-C save first, and more epochs continue one that
    is finished. Several processes: `accelerate launch -m
    vlm_adapters train RECIPE`.
    """
    from vlm_adapters.training.recipe import recipe_names

    if list_recipes:
        _list(recipe_names(), as_json=as_json)
        return
    if recipe is None:
        raise RecipeError(f"Name a recipe: one of {', '.join(recipe_names())}, or a YAML file.")
    with ProgressBars() as bars:
        content = read_recipe(recipe, changes)
        from vlm_adapters.training.data import process_of
        from vlm_adapters.training.loop import train

        state = train(content, out, report=bars.stepped, cache_report=bars.built)
    if process_of(content).is_first:
        _print(state, out, as_json=as_json)
    if not state.is_finished:
        again = shlex.join(["adapters", "train", recipe, *(changes or []), "--out", str(out)])
        line(f"Stopped at step {state.step} of {state.total_steps}; the same command resumes: {again}", err=True)
        raise typer.Exit(SIGTERM_EXIT)


def _list(names: dict[str, str], *, as_json: bool) -> None:
    if as_json:
        print_json(names)
        return
    width = max(map(len, names))
    for name, summary in names.items():
        line(f"{name:{width}}  {summary}")


def _print(state: RunState, out: Path, *, as_json: bool) -> None:
    if as_json:
        content = {"out": str(out), "step": state.step, "total_steps": state.total_steps, "best_step": state.best_step}
        print_json({**content, "best_mean_iou": state.best_mean_iou})
        return
    line(f"{state.step} steps, saved in {out}")
    if state.best_mean_iou is not None:
        line(f"best validation: mean IoU {state.best_mean_iou:.4f} at step {state.best_step}")
        line(f"Next: adapters ground IMAGE TEXT --model {out / 'best'}")
