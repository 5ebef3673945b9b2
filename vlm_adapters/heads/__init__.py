"""Heads: which attention heads show where things are, and the training-free maps that are made of them."""

from vlm_adapters.heads.calibrate import CalibrationSet, calibrate
from vlm_adapters.heads.profile import HeadProfile, ProfileHead, find_profile
from vlm_adapters.heads.ranking import RankedHead, rank_heads

__all__ = [
    "CalibrationSet",
    "HeadProfile",
    "ProfileHead",
    "RankedHead",
    "calibrate",
    "find_profile",
    "rank_heads",
]
