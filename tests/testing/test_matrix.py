"""The support matrix says what the suite reported, and nothing else."""

from __future__ import annotations

from typing import Any

from vlm_adapters.testing import ALL_CHECKS, CheckResult
from vlm_adapters.testing.matrix import CAPABILITIES, capabilities_of, capability_of, markdown


def outcomes(**states: Any) -> dict[str, str]:
    results = []
    for check in (check.__name__ for check in ALL_CHECKS):
        state = states.get(check, "passed")
        results.append(CheckResult(check, "", state, "" if state == "passed" else f"{check} {state}", 0.0))
    return capabilities_of(results)


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{name}`")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_every_check_belongs_to_a_column_and_every_column_has_a_check() -> None:
    assert {capability_of(check.__name__) for check in ALL_CHECKS} == set(CAPABILITIES)


def test_all_passed_is_yes_everywhere() -> None:
    assert row(markdown({"right": outcomes()}, {}), "right") == ["yes"] * len(CAPABILITIES)


def test_one_failure_shows_no_in_its_column_alone() -> None:
    cells = row(markdown({"wrong": outcomes(check_orientation="failed")}, {}), "wrong")
    assert [CAPABILITIES[i] for i, cell in enumerate(cells) if cell == "no"] == ["cells in place"]
    assert cells.count("yes") == len(CAPABILITIES) - 1


def test_a_skipped_check_shows_no_with_its_reason_below() -> None:
    one, two = outcomes(check_several_images="skipped"), outcomes(check_precisions_agree="skipped")
    text = markdown({"one": one, "two": two}, {})
    assert row(text, "one")[CAPABILITIES.index("several images")] == "no [1]"
    assert row(text, "two")[CAPABILITIES.index("bfloat16")] == "no [2]"
    assert "1. check_several_images skipped\n2. check_precisions_agree skipped\n" in text


def test_a_check_that_did_not_run_is_no() -> None:
    assert row(markdown({"empty": capabilities_of([])}, {}), "empty") == ["no"] * len(CAPABILITIES)


def test_the_versions_are_listed_below_once() -> None:
    text = markdown({"one": outcomes(), "two": outcomes()}, {"torch": "2.14.1", "python": "3.11.7"})
    assert text.endswith("\nRun on torch 2.14.1, python 3.11.7.\n")
    assert text.count("Run on") == 1


def test_a_family_that_cannot_be_run_is_said_to_be_so() -> None:
    text = markdown({}, {})
    assert row(text, "cogvlm2")[0].startswith("remote code only")
    assert row(text, "mllama")[0].startswith("the text sees the image by cross-attention")
