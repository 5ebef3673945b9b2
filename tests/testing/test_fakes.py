"""The fakes pass every check."""

from __future__ import annotations

import pytest

from vlm_adapters.testing import AdapterCase, Check, CheckSkipped, parametrize_with_checks
from vlm_adapters.testing.fakes import COARSE_FAKE_CASE, FAKE_CASE

TRANSFORMERS_ONLY = ("check_capture_changes_no_logits", "check_generation_equals_one_pass")


@parametrize_with_checks([FAKE_CASE, COARSE_FAKE_CASE])
def test_fake_passes(case: AdapterCase, check: Check) -> None:
    if check.__name__ in TRANSFORMERS_ONLY:
        with pytest.raises(CheckSkipped, match="FakeAdapter has no transformers model"):
            check(case)
    else:
        check(case)
