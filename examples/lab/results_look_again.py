"""The section of docs/results.md about looking again at small things."""

from __future__ import annotations

from typing import Any

from report import read_report, sources, table


def look_again() -> str:
    """Answers and masks of small things, by one look, by two, and by a look at a random crop."""
    report = read_report("look_again")
    models: dict[str, Any] = report["models"]
    first = next(iter(models.values()))
    rows = [
        (what, way, *(_with_interval(numbers[what][way]) for numbers in models.values()))
        for what in ("word right", "mask IoU", "mask IoU above 0.5")
        for way in first[what]
    ]
    cells = [numbers["median width of a shape, in cells"] for numbers in models.values()]
    unlike = max(numbers["images that are unlike a scene"] for numbers in models.values())
    return f"""## Looking again

{report["scenes"]} scenes whose shapes have their usual size on a canvas {report["canvas"]} times as wide and as high:
they are {min(cells):.1f} to {max(cells):.1f} image tokens wide (medians).

*Word right*: the likeliest word after "a red" is the shape that is red. It is asked of the whole image, of the crop
around what the model itself finds for "a red", of a crop of that size at a random place, and of the crop around the
true mask. *Mask IoU*: "a red star" found in one look, by [looking again](grounding.md#looking-again), and in a random
crop. In brackets: 95 % of the draws of a bootstrap over the scenes. {unlike} of these images look unlike a scene to the
models' own check, and are counted all the same.

{table(("", "", *(f"`{model}`" for model in models)), rows)}

{sources("look_again")}"""


def _with_interval(number: dict[str, Any]) -> str:
    low, high = number["interval"]
    return f"{number['value']:.2f} [{low:.2f}, {high:.2f}]"
