"""The fakes pass every check."""

from __future__ import annotations

import pytest

from vlm_adapters.testing import AdapterCase, Check, CheckSkipped, parametrize_with_checks
from vlm_adapters.testing.fakes import COARSE_FAKE_CASE, FAKE_CASE

SKIPPED = {
    "check_capture_changes_no_logits": "FakeAdapter has no transformers model",
    "check_extract_asks_for_no_outputs": "FakeAdapter has no transformers model",
    "check_generation_equals_one_pass": "FakeAdapter has no transformers model",
    "check_answer_is_the_likeliest": "does not answer",
    "check_answering_changes_nothing": "does not answer",
    "check_only_a_user_is_answered": "does not answer",
    "check_frame_of_coordinates": "not known to point",
}


@parametrize_with_checks([FAKE_CASE, COARSE_FAKE_CASE])
def test_fake_passes(case: AdapterCase, check: Check) -> None:
    if check.__name__ in SKIPPED:
        with pytest.raises(CheckSkipped, match=SKIPPED[check.__name__]):
            check(case)
    else:
        check(case)
