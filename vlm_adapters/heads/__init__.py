"""Heads: which attention heads show where things are, and the training-free maps that are made of them."""

from vlm_adapters.heads.attention import AttentionMaps, Reliability, attention_maps
from vlm_adapters.heads.calibrate import CalibrationSet, calibrate
from vlm_adapters.heads.profile import HeadProfile, ProfileHead, find_profile
from vlm_adapters.heads.ranking import RankedHead

__all__ = [
    "AttentionMaps",
    "CalibrationSet",
    "HeadProfile",
    "ProfileHead",
    "RankedHead",
    "Reliability",
    "attention_maps",
    "calibrate",
    "find_profile",
]
