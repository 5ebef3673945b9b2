"""Every kind of progress is the same protocol."""

from __future__ import annotations

import pytest

from vlm_adapters.bulk import BulkProgress
from vlm_adapters.evaluation import EvaluationProgress
from vlm_adapters.progress import Progress
from vlm_adapters.training import BuildProgress, Step

KINDS: dict[str, tuple[Progress, tuple[int, int, str, str]]] = {
    "evaluation": (EvaluationProgress(3, 5), (3, 5, "samples", "")),
    "bulk": (BulkProgress(3, 5, 1), (3, 5, "images", "failed 1")),
    "cache": (BuildProgress(3, 5, 2, 1_500_000), (3, 5, "samples", "1.5 MB")),
    "training": (Step(3, 5, 0.25, 1e-3, 1.0, 0.1), (3, 5, "steps", "loss 0.250")),
}


@pytest.mark.parametrize("kind", KINDS)
def test_progress_counts_units(kind: str) -> None:
    progress, expected = KINDS[kind]
    assert (progress.done, progress.total, progress.unit, progress.status) == expected
