"""Grounding: from an image and a sentence to a mask for every phrase."""

from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.boxes import BoxAnswer, BoxGrounder
from vlm_adapters.grounding.chat import GroundedChat, PhraseFinder, Turn
from vlm_adapters.grounding.closer import CloserLook, Crop, crop_from
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.load import load_grounder
from vlm_adapters.grounding.noun_phrases import noun_phrases
from vlm_adapters.grounding.one_call import ground
from vlm_adapters.grounding.result import GroundedPhrase, Grounding, Method, PackedMask, PhraseMap, grounded_phrase
from vlm_adapters.grounding.video import VideoGrounding

__all__ = [
    "BoxAnswer",
    "BoxGrounder",
    "CloserLook",
    "Crop",
    "GroundedChat",
    "GroundedPhrase",
    "GroundedVLM",
    "Grounder",
    "Grounding",
    "HeadGrounder",
    "Method",
    "PackedMask",
    "PhraseFinder",
    "PhraseMap",
    "Turn",
    "VideoGrounding",
    "crop_from",
    "ground",
    "grounded_phrase",
    "load_grounder",
    "noun_phrases",
]
