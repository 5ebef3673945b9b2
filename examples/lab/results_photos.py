"""Sections of docs/results.md about masks without training, on photographs and scenes."""

from __future__ import annotations

from report import read_report, sources, table


def photos() -> str:
    """Photographs whose coarse masks are refined by MobileSAM, untrained."""
    report = read_report("photos")
    ways = {name: way for name, way in report.items() if isinstance(way, dict)}
    first = next(iter(ways.values()))
    head = [""]
    for part, what in (("large", f" of {report['least pixels of a large thing']} pixels or more"), ("all", "")):
        head += [f"{first[part]['count']} things{what}: mean IoU", "boundary F (2 px)"]
    rows = [
        (name, *(f"{way[part][measure]:.3f}" for part in ("large", "all") for measure in ("iou", "boundary")))
        for name, way in ways.items()
    ]
    return f"""## Refining on photographs

Coarse masks of things in two real photographs, refined by MobileSAM, untrained (`pip install "vlm-adapters[sam]"`). The
coarse mask is the truth on 24 x 24 cells. Weights and numbers of prompts were chosen on synthetic scenes with a look at
these photographs; which kinds of prompts there are was tried on them, too.

{table(head, rows)}

{sources("photos")}"""


def points() -> str:
    """Partly hidden things from boxes, alone and with points."""
    report = read_report("points")
    parts = [
        table(
            ("", f"{name}, {report[name]['things']} things: mean IoU"),
            [(way, f"{value:.3f}") for way, value in report[name].items() if way != "things"],
        )
        for name in ("crossed by a bar", "hidden by others", "as they are")
    ]
    return f"""## Boxes and points

Things that are partly hidden in held-out scenes, segmented by MobileSAM, untrained: from the true box alone, and with
the map of the phrase, which gives five points inside, five beside it, and a mask as prompts. The maps are the truth on
a grid of cells, or those of the heads of `{report["model"]}`. Where a map lies elsewhere, the box alone decides.

{parts[0]}

{parts[1]}

Whole things: the masks of its heads and of its decoder, refined the same way. Settings were chosen on scenes of another
seed.

{parts[2]}

{sources("points")}"""
