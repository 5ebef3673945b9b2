"""The support matrix: what every adapter can do, from what the conformance suite reported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from vlm_adapters.registry.unsupported import UNSUPPORTED
from vlm_adapters.registry.versions import describe
from vlm_adapters.testing.runner import ALL_CHECKS, CheckResult

_BY_CHECK = {
    "check_several_images": "several images",
    "check_several_images_are_not_mixed": "several images",
    "check_precisions_agree": "bfloat16",
    "check_generation_equals_one_pass": "KV cache",
    "check_control_tokens_are_text": "hostile text",
    "check_frame_of_coordinates": "points",
}
_BY_MODULE = {
    "checks_geometry": "cells in place",
    "checks_attention": "exact rows",
    "checks_hidden": "hidden states",
    "checks_gradient": "gradient",
    "checks_batch": "batches",
    "checks_protocol": "protocol",
    "checks_conduct": "model untouched",
    "checks_transformers": "model untouched",
    "checks_abilities": "answers",
}
CAPABILITIES = (
    "cells in place",
    "exact rows",
    "hidden states",
    "gradient",
    "batches",
    "several images",
    "KV cache",
    "bfloat16",
    "hostile text",
    "answers",
    "points",
    "model untouched",
    "protocol",
)
"""The columns; every check belongs to one."""


@dataclass(frozen=True)
class AdapterReport:
    """How the suite went over one adapter, and on which versions."""

    adapter: str
    results: tuple[CheckResult, ...]
    versions: Mapping[str, str] = field(default_factory=dict)


def capability_of(check: str) -> str:
    """The column that a check belongs to."""
    module = next(each.__module__ for each in ALL_CHECKS if each.__name__ == check).rsplit(".", 1)[1]
    return _BY_CHECK.get(check, _BY_MODULE[module])


def markdown(reports: Sequence[AdapterReport]) -> str:
    """Write the matrix as a table: `yes` where every check of a capability passed, `no` where one failed.

    A capability whose checks were skipped gets a number, and the reason stands below; families that cannot be run
    stand below, too, and the versions that the suite ran on.
    """
    notes: list[str] = []
    lines = [f"| | {' | '.join(CAPABILITIES)} |", "|---" * (len(CAPABILITIES) + 1) + "|"]
    for report in reports:
        cells = [_cell(report, capability, notes) for capability in CAPABILITIES]
        lines.append(f"| `{report.adapter}` | {' | '.join(cells)} |")
    lines += [f"| `{family.name}` |{' not run |' * len(CAPABILITIES)}" for family in UNSUPPORTED]
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))] if notes else []
    lines += ["", *(f"`{family.name}`: {family.reason}." for family in UNSUPPORTED)]
    lines += ["", *(f"Run on {where}." for where in sorted({describe(report.versions) for report in reports} - {""}))]
    return "\n".join(lines) + "\n"


def _cell(report: AdapterReport, capability: str, notes: list[str]) -> str:
    results = [result for result in report.results if capability_of(result.check) == capability]
    states = {result.state for result in results}
    if states == {"passed"}:
        return "yes"
    if "failed" in states or not states:
        return "no"
    reason = next(result.reason for result in results if result.state == "skipped")
    if reason not in notes:
        notes.append(reason)
    return f"no [{notes.index(reason) + 1}]"
