"""Running the checks, by a direct call or by pytest."""

from __future__ import annotations

import difflib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Literal

from vlm_adapters.embedded.unlike_scenes import images_of_our_own
from vlm_adapters.errors import OptionError
from vlm_adapters.limits import shown
from vlm_adapters.testing import (
    checks_abilities,
    checks_answers,
    checks_attention,
    checks_batch,
    checks_conduct,
    checks_geometry,
    checks_gradient,
    checks_hidden,
    checks_protocol,
    checks_stock,
    checks_transformers,
    checks_video,
)
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.remedies import REMEDIES
from vlm_adapters.testing.support import CheckSkipped

if TYPE_CHECKING:
    import pytest

Check = Callable[[AdapterCase], None]

ALL_CHECKS: tuple[Check, ...] = (
    checks_protocol.check_protocol,
    checks_protocol.check_info,
    checks_protocol.check_phrases_spell_themselves,
    checks_protocol.check_phrase_among_other_scripts,
    checks_protocol.check_repeated_words,
    checks_protocol.check_phrase_tokens_are_text,
    checks_protocol.check_control_tokens_are_text,
    checks_protocol.check_prompt_without_phrases,
    checks_protocol.check_no_prompt_is_an_error,
    checks_protocol.check_wrong_requests_are_errors,
    checks_protocol.check_predictor_of_first_token,
    checks_protocol.check_preprocess_uses_no_network,
    checks_geometry.check_image_reaches_the_model,
    checks_stock.check_ids_equal_stock,
    checks_stock.check_ids_of_two_images_equal_stock,
    checks_stock.check_pixels_equal_stock,
    checks_stock.check_pixels_of_two_images_equal_stock,
    checks_geometry.check_grid_names,
    checks_geometry.check_grid_shapes,
    checks_geometry.check_cell_boxes,
    checks_geometry.check_cells_are_image_tokens,
    checks_geometry.check_orientation,
    checks_geometry.check_several_images,
    checks_geometry.check_several_images_are_not_mixed,
    checks_video.check_video_is_taken_or_refused,
    checks_video.check_video_grids,
    checks_video.check_video_place_and_time,
    checks_video.check_video_beside_an_image,
    checks_video.check_video_batch_equals_samples,
    checks_video.check_video_ids_equal_stock,
    checks_video.check_video_pixels_equal_stock,
    checks_attention.check_rows_equal_eager,
    checks_attention.check_rows_beside_eager_kernel,
    checks_attention.check_predictor_is_one_earlier,
    checks_attention.check_mean_of_rows,
    checks_attention.check_max_of_rows,
    checks_attention.check_last_of_rows,
    checks_attention.check_row_phrases,
    checks_attention.check_phrase_alone_and_beside_others,
    checks_attention.check_later_text_changes_no_row,
    checks_attention.check_chosen_layers,
    checks_attention.check_chosen_heads,
    checks_attention.check_attention_is_a_share,
    checks_attention.check_precisions_agree,
    checks_hidden.check_hidden_grids,
    checks_hidden.check_phrase_hidden,
    checks_hidden.check_each_hidden_layer_alone,
    checks_hidden.check_chosen_hidden_layers,
    checks_hidden.check_chosen_phrase_hidden_layers,
    checks_gradient.check_gradient_of_rows,
    checks_gradient.check_gradient_of_hidden_states,
    checks_gradient.check_gradient_only_where_asked,
    checks_gradient.check_gradient_keeps_the_mode,
    checks_batch.check_left_padded_batch_equals_samples,
    checks_batch.check_right_padded_batch_equals_samples,
    checks_batch.check_batch_keeps_its_order,
    checks_batch.check_texts_of_one_image_equal_samples,
    checks_conduct.check_deterministic,
    checks_conduct.check_capture_changes_no_states,
    checks_conduct.check_no_gradient,
    checks_conduct.check_parameters_unchanged,
    checks_conduct.check_stays_in_eval_mode,
    checks_conduct.check_inputs_not_mutated,
    checks_conduct.check_prompts_not_mutated,
    checks_conduct.check_nothing_square,
    checks_conduct.check_threads,
    checks_conduct.check_spawned_process,
    checks_transformers.check_capture_changes_no_logits,
    checks_transformers.check_phrase_log_probabilities,
    checks_transformers.check_attention_pattern,
    checks_transformers.check_extract_asks_for_no_outputs,
    checks_transformers.check_batched_windows_change_no_states,
    checks_transformers.check_generation_equals_one_pass,
    checks_abilities.check_answer_is_the_likeliest,
    checks_abilities.check_answering_changes_nothing,
    checks_abilities.check_only_a_user_is_answered,
    checks_answers.check_answer_is_read_by_its_tokens,
    checks_answers.check_earlier_answer_is_read_by_its_tokens,
    checks_answers.check_rows_while_answering,
    checks_abilities.check_frame_of_coordinates,
)
"""All checks, in the order of a report. Each tests one behaviour and raises AssertionError or CheckSkipped."""


@dataclass(frozen=True)
class CheckResult:
    """The result of one check.

    Attributes:
        check: Name of the function.
        title: First line of its docstring, which states the expected behaviour.
        state: `"passed"`, `"failed"` or `"skipped"`.
        reason: Reason why it failed or was skipped; empty if it passed.
        seconds: Duration of the check.
        traceback: Where it failed, as Python prints it; empty if it did not.
    """

    check: str
    title: str
    state: Literal["passed", "failed", "skipped"]
    reason: str
    seconds: float
    traceback: str = ""


def run_checks(
    case: AdapterCase, checks: Sequence[Check] = ALL_CHECKS, report: Callable[[CheckResult], None] | None = None
) -> list[CheckResult]:
    """Run checks over a case. Every exception becomes a result, so that all checks run.

    Args:
        case: The case.
        checks: The checks.
        report: Called with every result as soon as it is there.
    """
    results = []
    for check in checks:
        with images_of_our_own():
            results.append(_result(case, check))
        if report is not None:
            report(results[-1])
    return results


def checks_named(names: Sequence[str]) -> list[Check]:
    """The checks with these names, such as `check_orientation`.

    Raises:
        OptionError: There is no such check.
    """
    by_name = {check.__name__: check for check in ALL_CHECKS}
    for name in names:
        if name not in by_name:
            close = difflib.get_close_matches(name, by_name, cutoff=0.5)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(by_name)}."
            raise OptionError(f"There is no check {shown(name)}. {hint}")
    return [by_name[name] for name in names]


def parametrize_with_checks(cases: Sequence[AdapterCase]) -> pytest.MarkDecorator:
    """Make pytest run a test of the arguments `case` and `check` with every check over every case.

    ```python
    @parametrize_with_checks([CASE])
    def test_conformance(case, check):
        check(case)
    ```
    """
    import pytest  # noqa: PLC0415 (not a dependency of the library)

    return pytest.mark.parametrize(
        ("case", "check"),
        [
            pytest.param(case, _with_remedy(check), id=f"{case.name}-{check.__name__}")
            for case in cases
            for check in ALL_CHECKS
        ],
    )


def _with_remedy(check: Check) -> Check:
    """The check, whose failures carry a note of what to change."""

    @wraps(check)
    def checked(case: AdapterCase) -> None:
        try:
            with images_of_our_own():
                check(case)
        except AssertionError as failure:
            if remedy := REMEDIES.get(check.__name__):
                failure.add_note(remedy)
            raise

    return checked


def _result(case: AdapterCase, check: Check) -> CheckResult:
    state: Literal["passed", "failed", "skipped"] = "passed"
    reason = trace = ""
    start = time.perf_counter()
    try:
        check(case)
    except CheckSkipped as skipped:
        state, reason = "skipped", str(skipped)
    except AssertionError as failure:
        state, reason, trace = "failed", str(failure), traceback.format_exc()
        reason = f"{reason.rstrip('.')}. {REMEDIES[check.__name__]}" if check.__name__ in REMEDIES else reason
    except Exception as error:  # noqa: BLE001 (an adapter may raise anything; the other checks still run)
        state, reason, trace = "failed", f"raised {type(error).__name__}: {error}", traceback.format_exc()
    title = (check.__doc__ or "").strip().splitlines()[0]
    return CheckResult(check.__name__, title, state, reason, time.perf_counter() - start, trace)
