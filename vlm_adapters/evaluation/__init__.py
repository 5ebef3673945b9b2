"""Evaluation: how well masks agree with the truth, as records, numbers with intervals, and a card."""

from vlm_adapters.evaluation.card import Card
from vlm_adapters.evaluation.fingerprint import EvaluationSettings, RunFingerprint
from vlm_adapters.evaluation.gcg import GCGScores, GroundedCaption, gcg_scores
from vlm_adapters.evaluation.metrics import boundary_f_score, box_iou, mask_iou
from vlm_adapters.evaluation.presence import auroc, expected_calibration_error
from vlm_adapters.evaluation.process import Process
from vlm_adapters.evaluation.protocols import PROTOCOLS, open_for_protocol
from vlm_adapters.evaluation.record import Agreement, Record, read_records, write_records
from vlm_adapters.evaluation.run import EvaluationProgress, evaluate
from vlm_adapters.evaluation.summary import METRICS, NO_TARGET_METRICS, Number, bootstrap, join_runs, summarise

__all__ = [
    "METRICS",
    "NO_TARGET_METRICS",
    "PROTOCOLS",
    "Agreement",
    "Card",
    "EvaluationProgress",
    "EvaluationSettings",
    "GCGScores",
    "GroundedCaption",
    "Number",
    "Process",
    "Record",
    "RunFingerprint",
    "auroc",
    "bootstrap",
    "boundary_f_score",
    "box_iou",
    "evaluate",
    "expected_calibration_error",
    "gcg_scores",
    "join_runs",
    "mask_iou",
    "open_for_protocol",
    "read_records",
    "summarise",
    "write_records",
]
