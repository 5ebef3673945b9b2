"""Section of docs/results.md about numbers over several held-out seeds."""

from __future__ import annotations

from typing import Any

from report import RESULTS, read_report, sources, table

DATA = ("scenes", "hard_scenes")


def claims() -> str:
    """Every model over several held-out seeds, with intervals, and decoders that differ in their training seed."""
    names = [f"claims_{data}" for data in DATA if (RESULTS / f"claims_{data}.json").is_file()]
    parts = [part for name in names for part in _parts(read_report(name))]
    return f"""## Over several seeds

One trained checkpoint each, on held-out seeds of a data set on which nothing was trained, chosen or calibrated. In
brackets: 95 % of the draws of a bootstrap over the images of all seeds; then the number of every seed alone.

{chr(10).join(parts)}
{sources(*names)}"""


def _parts(report: dict[str, Any]) -> list[str]:
    """The tables of a data set: models, groups of phrases, training seeds, and controls."""
    seeds = [f"seed {seed}" for seed in report["seeds"]]
    head = ("", "masks", "", f"{len(seeds)} seeds", *seeds)
    found = {f"`{model}`": claimed for model, claimed in report["models"].items()}
    found |= {f"`{model}`, random weights": claimed for model, claimed in report["random"].items()}
    parts = [f"`{report['data']}`, {report['count']} images of every seed:\n", table(head, _rows(found)), ""]
    if by_seed := report["trained by seed"]:
        trained = {f"trained with seed {seed}": claimed for seed, claimed in by_seed["seeds"].items()}
        parts += [f"Decoders of `{by_seed['model']}` that differ in the seed of their training:\n"]
        parts += [table(head, _rows(trained)), ""]
    return parts


def _rows(found: dict[str, Any]) -> list[list[str]]:
    return [
        [title, masks, name, _with_interval(number), *(_short(value) for value in number["by seed"].values())]
        for title, claimed in found.items()
        for masks, numbers in claimed.items()
        for name, number in numbers.items()
        if name in ("mIoU", "N-acc", "T-acc") or name.startswith("mIoU, ")
    ]


def _with_interval(number: dict[str, Any]) -> str:
    low, high = number["interval"]
    return f"{number['value']:.4f} [{low:.4f}, {high:.4f}]"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
