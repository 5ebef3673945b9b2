"""Plots of a bench: time and memory over the length of the sequence, the layers and the sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from vlm_adapters.data.files import whole_file
from vlm_adapters.errors import OptionError
from vlm_adapters.inspection.bench.measure import Measurement, Section

Curve = list[tuple[float, Measurement]]
"""Measurements over a number."""


def check_matplotlib() -> None:
    """Make sure that plots can be drawn.

    Raises:
        OptionError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise OptionError(
            "The plots of --out need matplotlib, which comes with an extra: pip install 'vlm-adapters[supervision]'. "
            "Without them, --json prints the numbers."
        )


def write_plots(sections: Sequence[Section], folder: Path) -> list[Path]:
    """Draw what was measured over several numbers; nothing is drawn of a single one.

    Returns:
        The files, of those `tokens.png`, `layers.png` and `sentences.png` that there is something for.
    """
    found = {
        "tokens": ("tokens", by_tokens(sections)),
        "layers": ("layers that run", by_count(sections, "layers")),
        "sentences": ("sentences on one image", by_count(sections, "sentences")),
    }
    return [
        _draw(folder / f"{name}.png", label, curves)
        for name, (label, curves) in found.items()
        if any(len(curve) > 1 for curve in curves.values())
    ]


def by_tokens(sections: Sequence[Section]) -> dict[str, Curve]:
    """The variants of the rows over the length of the sequence."""
    curves: dict[str, Curve] = {}
    for section in sections:
        if section.part == "rows" and section.tokens:
            for row in section.rows:
                if row.seconds is not None:
                    curves.setdefault(row.variant, []).append((section.tokens, row))
    return {name: sorted(curve, key=lambda point: point[0]) for name, curve in curves.items()}


def by_count(sections: Sequence[Section], unit: str) -> dict[str, Curve]:
    """The variants whose names begin with a number of a unit, such as `4 layers`, over that number."""
    curves: dict[str, Curve] = {}
    for section in sections:
        for row in section.rows:
            if row.seconds is not None and (match := re.fullmatch(rf"(\d+) {unit}?", row.variant)):
                curves.setdefault(section.title, []).append((int(match[1]), row))
    return curves


def _draw(file: Path, label: str, curves: dict[str, Curve]) -> Path:
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above; without pyplot, which keeps figures

    with_memory = any(row.peak_bytes is not None for curve in curves.values() for _, row in curve)
    figure = Figure(figsize=(10 if with_memory else 5, 4), layout="constrained")
    time, *memory = figure.subplots(1, 2 if with_memory else 1, squeeze=False)[0]
    for name, curve in curves.items():
        time.plot([x for x, _ in curve], [1e3 * (row.seconds or 0) for _, row in curve], marker="o", label=name)
        for axes in memory:
            axes.plot(
                [x for x, _ in curve], [(row.peak_bytes or 0) / 2**20 for _, row in curve], marker="o", label=name
            )
    for axes, title in ((time, "time, ms"), *((axes, "peak beyond the model, MiB") for axes in memory)):
        axes.set(xlabel=label, ylabel=title, ylim=(0, None))
        axes.legend()
    with whole_file(file) as temporary:
        figure.savefig(temporary, format="png")
    return file
