"""Section of docs/results.md about numbers over several held-out seeds."""

from __future__ import annotations

from typing import Any

from report import read_report, sources, table

from vlm_adapters.embedded import embedded_checkpoints


def claims() -> str:
    """Every model over several held-out seeds, with intervals, and decoders that differ in their training seed."""
    report = read_report("claims")
    parts = [part for data, found in report["data"].items() for part in _of_data(data, report["count"], found)]
    return f"""## Over several seeds

One trained checkpoint each, on three held-out seeds of a data set on which nothing was trained, chosen or calibrated.
In brackets: 95 % of the draws of a bootstrap over the images of all seeds; then the number of every seed alone.

Further decoders of `tiny-llava` differ in the seed of their training, and one was trained over random weights: each in
{report["steps"]:,} steps on {report["scenes of each kind to train on"]:,} scenes of each kind, without a presence head.

{chr(10).join(parts)}
{sources("claims")}"""


def _of_data(data: str, count: int, found: dict[str, Any]) -> list[str]:
    """The table of a data set."""
    first = next(iter(found.values()))
    seeds = list(next(iter(next(iter(first.values())).values()))["by seed"])
    head = ("", "masks", "", f"{len(seeds)} seeds", *seeds)
    return [f"`{data}`, {count} images of every seed:\n", table(head, _rows(found)), ""]


def _rows(found: dict[str, Any]) -> list[list[str]]:
    return [
        [title, masks, name, _with_interval(number), *(_short(value) for value in number["by seed"].values())]
        for title, claimed in found.items()
        for masks, numbers in claimed.items()
        for name, number in numbers.items()
        if name == "mIoU"
        or (title in embedded_checkpoints() and (name in ("N-acc", "T-acc") or name.startswith("mIoU, ")))
    ]


def _with_interval(number: dict[str, Any]) -> str:
    low, high = number["interval"]
    return f"{number['value']:.4f} [{low:.4f}, {high:.4f}]"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
