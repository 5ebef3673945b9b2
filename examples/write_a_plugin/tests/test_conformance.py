"""The adapter passes the conformance suite."""

from vlm_adapters.testing import AdapterCase, Check, parametrize_with_checks

from vlm_adapters_video_llama_3.case import CASE


@parametrize_with_checks([CASE])
def test_conformance(case: AdapterCase, check: Check) -> None:
    """Every check is a test of its own."""
    check(case)
