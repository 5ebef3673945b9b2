"""The section of docs/results.md about answers that are steered by attention."""

from __future__ import annotations

from typing import Any

from report import read_report, sources, table


def steering() -> str:
    """How often an answer follows the region that heads are steered to."""
    report = read_report("steering")
    models: dict[str, Any] = report["models"]
    names = next(iter(models.values()))
    rows = [(name, *(_shown(numbers[name]) for numbers in models.values())) for name in names]
    return f"""## Steering by attention

{report["scenes"]} held-out scenes of two shapes of one colour. The answer begins with "a red", and the attention of a
few heads to one of the shapes is raised ([how](attention.md#attention-as-a-lever)): how often is the likeliest next
word that shape, over both shapes of each scene? Heads, their number and the strength were chosen on
{report["choosing"]} scenes of another seed. *Random heads*: as many at the same strength, the mean of three draws.

{table(("", *(f"`{model}`" for model in models)), rows)}

{sources("steering")}"""


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return f"{value:.2f}" if isinstance(value, float) else str(value)
