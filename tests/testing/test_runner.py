from __future__ import annotations

import pickle
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import CaptureError
from vlm_adapters.testing import (
    ALL_CHECKS,
    AdapterCase,
    CheckSkipped,
    ReferencePass,
    parametrize_with_checks,
    run_checks,
)
from vlm_adapters.testing.breaking import break_method, break_result
from vlm_adapters.testing.fakes import FAKE_CASE, FakeReference
from vlm_adapters.testing.remedies import REMEDIES

CHECKS = {check.__name__: check for check in ALL_CHECKS}


def test_every_check_of_the_modules_runs() -> None:
    modules = [module for name, module in sys.modules.items() if name.startswith("vlm_adapters.testing.checks_")]
    assert len(modules) == 12
    defined = {name for module in modules for name in vars(module) if name.startswith("check_")}
    assert defined == set(CHECKS) | {"check_text_moves_no_image"}
    assert len(ALL_CHECKS) == len(CHECKS)


def test_results_report_what_failed_was_skipped_and_crashed() -> None:
    def crashes(case: AdapterCase) -> None:
        """It crashes."""
        raise ValueError(case.name)

    names = ("check_grid_shapes", "check_capture_changes_no_logits", "check_no_prompt_is_an_error")
    transposed = break_result(
        FAKE_CASE,
        "locate_image_tokens",
        lambda found, _: [[replace(grid, tokens=grid.tokens.T) for grid in grids] for grids in found],
    )
    shapes = "grid names and shapes (h, w) of a (84, 252) image: expected [('fine', (3, 8))], found [('fine', (8, 3))]"
    results = run_checks(transposed, [*(CHECKS[name] for name in names), crashes])
    assert [result.check for result in results] == [*names, "crashes"]
    assert [result.state for result in results] == ["failed", "skipped", "passed", "failed"]
    assert [result.reason for result in results] == [
        f"{shapes}. {REMEDIES['check_grid_shapes']}",
        "BrokenFakeAdapter has no transformers model `model`",
        "",
        "raised ValueError: fake",
    ]
    assert results[3].title == "It crashes."
    assert all(result.title and result.seconds >= 0 for result in results)


def test_a_failure_in_pytest_carries_what_to_change() -> None:
    transposed = break_result(
        FAKE_CASE,
        "locate_image_tokens",
        lambda found, _: [[replace(grid, tokens=grid.tokens.T) for grid in grids] for grids in found],
    )
    checks = {
        check.__name__: check for _, check in (each.values for each in parametrize_with_checks([FAKE_CASE]).args[1])
    }
    with pytest.raises(AssertionError) as failure:
        checks["check_grid_shapes"](transposed)
    assert failure.value.__notes__ == [REMEDIES["check_grid_shapes"]]


def test_what_to_change_is_said_of_checks_that_exist_in_sentences() -> None:
    assert set(REMEDIES) <= set(CHECKS)
    assert [remedy for remedy in REMEDIES.values() if not remedy.endswith(".")] == []


def test_family_of_one_image_skips() -> None:
    case = replace(FAKE_CASE, several_images=False)
    for name in ("check_several_images", "check_several_images_are_not_mixed"):
        with pytest.raises(CheckSkipped, match="fake takes one image per prompt"):
            CHECKS[name](case)


def test_adapter_that_refuses_gradient_skips() -> None:
    def refuse(method: Any, _: object, inputs: BackboneInputs, request: GridRequest) -> Any:
        if request.gradient:
            raise CaptureError("No gradient here.")
        return method(inputs, request)

    for name in (name for name in CHECKS if name.startswith("check_gradient")):
        with pytest.raises(CheckSkipped, match=r"gives no gradient: No gradient here\."):
            CHECKS[name](break_method(FAKE_CASE, "extract", refuse))


def test_reference_without_gradient_is_noticed() -> None:
    class Detached(FakeReference):
        @torch.no_grad()
        def run(self, *arguments: Any) -> ReferencePass:
            return super().run(*arguments)

    with pytest.raises(AssertionError, match=r"of AdapterCase\.reference\.run: expected a gradient, found none"):
        CHECKS["check_gradient_of_rows"](replace(FAKE_CASE, reference=Detached()))


def test_case_without_oblong_images_shows_no_orientation() -> None:
    with pytest.raises(AssertionError, match="has no image that is not square"):
        CHECKS["check_orientation"](replace(FAKE_CASE, sizes=((64, 64),)))


def test_padding_side_without_effect_is_noticed() -> None:
    class Deaf(FakeReference):
        def set_padding_side(self, *_: object) -> None: ...

    with pytest.raises(AssertionError, match="set_padding_side has no effect"):
        CHECKS["check_right_padded_batch_equals_samples"](replace(FAKE_CASE, reference=Deaf()))


def test_a_case_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(FAKE_CASE)).load is FAKE_CASE.load  # noqa: S301 (our own bytes)
