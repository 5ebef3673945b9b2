"""The one door to grounders: `load_grounder`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.formats.scenes import Scenes
from vlm_adapters.decoder.checkpoint import CONFIG_FILE, decoder_folder
from vlm_adapters.decoder.download import HUB_KEYWORDS, is_decoder_config, is_on_hub
from vlm_adapters.decoder.sam.checkpoint import check_sam_file, load_sam
from vlm_adapters.errors import AdapterError, OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.boxes import BoxGrounder, can_point
from vlm_adapters.grounding.closer import CloserLook
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.grounding.heads import HeadGrounder
from vlm_adapters.grounding.result import Method
from vlm_adapters.heads.calibrate import CALIBRATION_SEED, CalibrationSet, calibrate
from vlm_adapters.heads.profile import HeadProfile, find_profile
from vlm_adapters.registry.checkpoint_files import read_json
from vlm_adapters.registry.checkpoints import hub_config
from vlm_adapters.registry.loading import load_adapter, model_name

METHODS: tuple[Method | Literal["auto"], ...] = ("auto", "decoder", "box", "heads")

QUICK_SCENES = 16
"""Number of scenes for a profile that is made while loading: seconds on a small model, minutes on a large CPU model."""


def load_grounder(
    model: str | os.PathLike[str] | BackboneAdapter,
    *,
    method: str = "auto",
    profile: str | os.PathLike[str] | None = None,
    sam: str | os.PathLike[str] | None = None,
    look_again: int = 0,
    **options: Any,
) -> Grounder:
    """Load a model with whatever finds masks with it.

    Args:
        model: An embedded model, a decoder's folder, a checkpoint's folder, or the hub id of a decoder or of a
            checkpoint, tried in this order; what a repository of the hub holds, its `config.json` says. Or an adapter
            that is loaded already, with which no options go.
        method: `"decoder"` uses a trained decoder, `"box"` the model's own answer in words, `"heads"` the attention of
            a few heads; `"auto"` uses the first of them that is available, and the heads if a profile is given.
        profile: File of the head profile. Without one, `head_profile.json` of an embedded model or in the checkpoint's
            folder is used for the heads; if there is none, one is made on `QUICK_SCENES` synthetic scenes with their
            masks. With `"box"` and `sam`, the maps of its heads choose among masks; without one, boxes alone do.
        sam: Checkpoint file of a Segment Anything model that refines the masks, or makes them of boxes.
        look_again: How often each phrase is grounded anew in a crop around what was found of it; see `CloserLook`.
        options: Options of `load_adapter`, such as device, dtype and revision, and those of the family.

    Raises:
        OptionError: The method is unknown, `look_again` is negative, options come with an adapter, a profile is given
            and nothing would read it, or the adapter does not declare that the model can point.
        CheckpointError: There is no such model, decoder or profile.
        DecoderError: The decoder or the profile does not fit the backbone, or the profile says that none of its heads
            follows phrases.

    Examples:
        >>> from vlm_adapters import load_grounder
        >>> load_grounder("tiny-llava").description
        'decoder, trained on llava'
    """
    if method not in METHODS:
        raise OptionError(f"Unknown method {method!r}. Use one of {', '.join(METHODS)}.")
    if profile is not None and method == "decoder":
        raise OptionError("A head profile is for the heads and the boxes, and the method is 'decoder'. Leave one out.")
    if profile is not None and method == "box" and sam is None:
        raise OptionError("Boxes that are filled read no head profile. Give a Segment Anything model, or no profile.")
    if look_again < 0:
        raise OptionError(f"Looking again {look_again} times cannot be done. Give 0 or more.")
    if sam is not None:  # before the model: mistakes show at once
        check_sam_file(sam)
    grounder = _load(model, method, profile, sam, options)
    return CloserLook(grounder, rounds=look_again) if look_again else grounder


def _load(
    model: str | os.PathLike[str] | BackboneAdapter,
    method: str,
    profile: str | os.PathLike[str] | None,
    sam: str | os.PathLike[str] | None,
    options: dict[str, Any],
) -> Grounder:
    """Load a grounder that looks once; see `load_grounder`."""
    if not isinstance(model, BackboneAdapter):
        loaded, name_or_path = None, model_name(model)
    elif options:
        raise OptionError(f"The adapter given is loaded already. Leave {', '.join(options)} out.")
    else:
        loaded, name_or_path = model, model.info.checkpoint
    if method == "decoder" or (method == "auto" and profile is None and has_decoder(name_or_path, **options)):
        return GroundedVLM.from_pretrained(name_or_path, adapter=loaded, sam=sam, **options)
    given = None if profile is None else HeadProfile.read(profile)
    if given is not None:
        given.check_has_heads()
    adapter = loaded or load_adapter(name_or_path, **options)
    beside = find_profile(name_or_path)
    chosen = given or (HeadProfile.read(beside) if beside else None)
    if method == "box" or (method == "auto" and given is None and can_point(adapter)):
        return BoxGrounder(adapter, None if sam is None else load_sam(sam), given)
    return HeadGrounder(adapter, chosen or quick_profile(adapter), None if sam is None else load_sam(sam))


def has_decoder(name_or_path: str | os.PathLike[str], **options: Any) -> bool:
    """Whether this is a decoder's folder or its id on the hub, or an embedded model or a model's folder with one.

    Args:
        name_or_path: As `load_grounder` takes it.
        options: Of those of `load_grounder`, what the hub is asked with.
    """
    name = os.fspath(name_or_path)
    try:
        if is_on_hub(name):
            path = hub_config(name, {option: options[option] for option in HUB_KEYWORDS if options.get(option)})
        else:
            path = decoder_folder(Path(name)) / CONFIG_FILE
        return is_decoder_config(read_json(path))
    except (AdapterError, OSError, ValueError):
        return False


def quick_profile(adapter: BackboneAdapter) -> HeadProfile:
    """Choose heads on a few synthetic scenes by their masks, which cost nothing and give better heads."""
    scenes = Scenes(QUICK_SCENES, seed=CALIBRATION_SEED)
    return calibrate(adapter, CalibrationSet.of_scenes(scenes, CALIBRATION_SEED, labelled=True))
