"""From the name of a model to whatever finds masks with it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.decoder.checkpoint import CONFIG_FILE, decoder_folder
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.boxes import BoxGrounder, can_point
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.result import Method
from vlm_adapters.heads.calibrate import CALIBRATION_SEED, CalibrationSet, calibrate
from vlm_adapters.heads.profile import HeadProfile, find_profile
from vlm_adapters.registry.loading import load_adapter

METHODS: tuple[Method | Literal["auto"], ...] = ("auto", "decoder", "box", "heads")

QUICK_SCENES = 16
"""Scenes for a profile that is made on the spot: seconds on a small model, minutes on a large one without a GPU."""


def load_grounder(
    name_or_path: str | os.PathLike[str],
    *,
    method: str = "auto",
    profile: str | os.PathLike[str] | None = None,
    sam: str | os.PathLike[str] | None = None,
    **options: Any,
) -> Grounder:
    """Load what finds masks with a model.

    Args:
        name_or_path: An embedded model, a decoder's folder, a checkpoint's folder or a hub id.
        method: `"decoder"` takes a trained decoder, `"box"` the model's own answer in words, `"heads"` the attention of
            a few heads; `"auto"` the first of them that there is, and the heads where a profile is named.
        profile: File of the head profile. Without one, the `heads.json` of an embedded model or in the checkpoint's
            folder is taken; else one is made on the spot, on `QUICK_SCENES` synthetic scenes with their masks.
        sam: Checkpoint file of a Segment Anything model that refines the masks, or makes them of boxes.
        options: For `load_adapter`: device, dtype, revision, the family's own.

    Raises:
        OptionError: The method is unknown, a profile is given for another method than the heads, or the adapter does
            not declare that the model can point.
        CheckpointError: There is no such model, decoder or profile.
        DecoderError: The decoder or the profile does not fit the backbone.
    """
    if method not in METHODS:
        raise OptionError(f"Unknown method {method!r}. Use one of {', '.join(METHODS)}.")
    if profile is not None and method not in ("auto", "heads"):
        raise OptionError(f"A head profile is for the heads, and the method is {method!r}. Leave one of them out.")
    if method == "decoder" or (method == "auto" and profile is None and has_decoder(name_or_path)):
        return GroundedVLM.from_pretrained(name_or_path, sam=sam, **options)
    named = None if profile is None else HeadProfile.read(profile)  # before the model: mistakes show at once
    adapter = load_adapter(name_or_path, **options)
    if method == "box" or (method == "auto" and named is None and can_point(adapter)):
        return BoxGrounder(adapter, None if sam is None else load_sam(sam))
    beside = find_profile(name_or_path)
    chosen = named or (HeadProfile.read(beside) if beside else quick_profile(adapter))
    return HeadGrounder(adapter, chosen, None if sam is None else load_sam(sam))


def has_decoder(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether this is a decoder's folder, or a model's folder or embedded model that has one in it."""
    try:
        config = json.loads((decoder_folder(Path(name_or_path)) / CONFIG_FILE).read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and isinstance(config.get("backbone"), dict)


def quick_profile(adapter: BackboneAdapter) -> HeadProfile:
    """Choose heads on a few synthetic scenes, by their masks: those cost nothing, and the heads are better."""
    scenes = Scenes(QUICK_SCENES, seed=CALIBRATION_SEED)
    return calibrate(adapter, CalibrationSet.of_scenes(scenes, CALIBRATION_SEED, labelled=True))
