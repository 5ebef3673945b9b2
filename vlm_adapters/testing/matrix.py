"""The support matrix: the capabilities of every adapter, from the results of the conformance suite."""

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
    "checks_stock": "stock inputs",
    "checks_attention": "exact rows",
    "checks_hidden": "hidden states",
    "checks_video": "video",
    "checks_gradient": "gradient",
    "checks_batch": "batches",
    "checks_protocol": "protocol",
    "checks_conduct": "model untouched",
    "checks_transformers": "model untouched",
    "checks_abilities": "answers",
    "checks_answers": "answers",
}
CAPABILITIES = (
    "cells in place",
    "stock inputs",
    "exact rows",
    "hidden states",
    "gradient",
    "batches",
    "several images",
    "video",
    "KV cache",
    "bfloat16",
    "hostile text",
    "answers",
    "points",
    "model untouched",
    "protocol",
)
"""The columns of the matrix; every check belongs to one."""


@dataclass(frozen=True)
class SuiteReport:
    """The results of the conformance suite over one adapter.

    Attributes:
        adapter: Name of the adapter.
        results: Results of all checks.
        versions: Versions of the packages that the suite ran on.
    """

    adapter: str
    results: tuple[CheckResult, ...]
    versions: Mapping[str, str] = field(default_factory=dict)


def capability_of(check: str) -> str:
    """The column that a check belongs to."""
    module = next(each.__module__ for each in ALL_CHECKS if each.__name__ == check).rsplit(".", 1)[1]
    return _BY_CHECK.get(check, _BY_MODULE[module])


def capabilities_of(results: Sequence[CheckResult]) -> dict[str, str]:
    """Reduce the results of an adapter to one word per capability.

    Returns:
        Capability -> `"yes"` if all of its checks passed, `"no"` if one failed or none ran, else the reason why one was
        skipped.
    """
    return {
        capability: _outcome([result for result in results if capability_of(result.check) == capability])
        for capability in CAPABILITIES
    }


def markdown(adapters: Mapping[str, Mapping[str, str]], versions: Mapping[str, str]) -> str:
    """Write the matrix as a table, with the reasons of skipped checks as notes below it.

    Families that cannot be run, and the versions that the suite ran on, follow.

    Args:
        adapters: Name of an adapter -> its capabilities, as `capabilities_of` gives them.
        versions: Versions of the packages that the suite ran on.
    """
    lines = [table(adapters), "", "| not supported | reason |", "|---|---|"]
    lines += [f"| `{family.name}` | {family.reason} |" for family in UNSUPPORTED]
    lines += ["", f"Run on {describe(versions)}."] if versions else [""]
    return "\n".join(lines) + "\n"


def table(adapters: Mapping[str, Mapping[str, str]]) -> str:
    """Write the lines of adapters, with the reasons of skipped checks as notes below them.

    Args:
        adapters: Name of an adapter -> its capabilities, as `capabilities_of` gives them.
    """
    notes: list[str] = []
    lines = [f"| | {' | '.join(CAPABILITIES)} |", "|---" * (len(CAPABILITIES) + 1) + "|"]
    for adapter, outcomes in adapters.items():
        cells = [_cell(outcomes[capability], notes) for capability in CAPABILITIES]
        lines.append(f"| `{adapter}` | {' | '.join(cells)} |")
    lines += ["", *(f"{number}. {note}" for number, note in enumerate(notes, 1))] if notes else []
    return "\n".join(lines)


def _outcome(results: Sequence[CheckResult]) -> str:
    states = {result.state for result in results}
    if states == {"passed"}:
        return "yes"
    if "failed" in states or not states:
        return "no"
    return next(result.reason for result in results if result.state == "skipped")


def _cell(outcome: str, notes: list[str]) -> str:
    if outcome in ("yes", "no"):
        return outcome
    if outcome not in notes:
        notes.append(outcome)
    return f"no [{notes.index(outcome) + 1}]"
