"""The conformance suite: an adapter is right if it passes every check over its case. `run_checks` runs them."""

from vlm_adapters.testing.case import SIZES, AdapterCase, ExpectedGrid, LoadAdapter
from vlm_adapters.testing.checks_protocol import check_text_moves_no_image
from vlm_adapters.testing.lookup import cases_of_project, find_case
from vlm_adapters.testing.reference import Reference, ReferencePass, TransformersReference
from vlm_adapters.testing.runner import (
    ALL_CHECKS,
    Check,
    CheckResult,
    checks_named,
    parametrize_with_checks,
    run_checks,
)
from vlm_adapters.testing.support import CheckSkipped

__all__ = [
    "ALL_CHECKS",
    "SIZES",
    "AdapterCase",
    "Check",
    "CheckResult",
    "CheckSkipped",
    "ExpectedGrid",
    "LoadAdapter",
    "Reference",
    "ReferencePass",
    "TransformersReference",
    "cases_of_project",
    "check_text_moves_no_image",
    "checks_named",
    "find_case",
    "parametrize_with_checks",
    "run_checks",
]
