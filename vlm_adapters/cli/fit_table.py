"""What grounding takes on a device, as `adapters info` prints it: the answer first, then a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vlm_adapters.cli.printing import line
from vlm_adapters.cli.tables import print_facts, print_rows

if TYPE_CHECKING:
    from vlm_adapters.inspection.fit import FitReport, Form


def print_fit(report: FitReport) -> None:
    """Print the answer, what to change if it does not fit, and the bytes of every precision."""
    line()
    line(report.answer, style="bold")
    if report.changes:
        line()
        line("It fits with any one of these:")
        for change in report.changes:
            line(f"* {change}")
    height, width = report.scene.image
    memory = report.forms[-1].memory
    print_facts(
        "Planned",
        [
            ("image", f"{width} wide, {height} high: {memory.image_tokens:,} tokens"),
            ("phrases", report.scene.phrases),
            ("sequence", f"{memory.tokens:,} tokens"),
            ("maps", f"{report.layers} layers x {report.heads} heads of every phrase"),
            ("decoder", report.decoder),
        ],
    )
    headings = ("", *(form.name for form in report.forms))
    rows = [(name, *(_cell(value(form)) for form in report.forms)) for name, value in _ROWS]
    if report.device_memory is not None:
        rows.append(("fits", *("yes" if form.fits else "no" for form in report.forms)))
    print_rows("GiB", headings, rows, headings[1:])


_ROWS: tuple[tuple[str, Callable[[Form], int]], ...] = (
    ("weights", lambda form: form.weights),
    ("decoder's weights", lambda form: form.decoder_weights),
    ("vision tower, at its peak", lambda form: form.memory.vision),
    ("language model, at its peak", lambda form: form.memory.language),
    ("maps kept of it", lambda form: form.memory.kept),
    ("Segment Anything, at its peak", lambda form: form.memory.sam),
    ("decoder, at its peak", lambda form: form.memory.decoder),
    ("passes, the most of these", lambda form: form.passes),
    ("driver and allocator, estimated", lambda form: form.allowance),
    ("all", lambda form: form.total),
)


def _cell(count: int) -> str:
    return f"{count / 2**30:.2f}"
