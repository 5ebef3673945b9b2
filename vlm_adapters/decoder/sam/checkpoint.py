"""Segment Anything from a checkpoint file: ViT-B, ViT-L, ViT-H, and MobileSAM."""

from __future__ import annotations

import importlib
import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry
from torch import Tensor

from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.errors import CheckpointError
from vlm_adapters.limits import shown

_VIT_WEIGHT = "image_encoder.patch_embed.proj.weight"
_VIT_BY_WIDTH = {768: "vit_b", 1024: "vit_l", 1280: "vit_h"}
_TINY_VIT_WEIGHT = "image_encoder.patch_embed.seq.0.c.weight"
_KNOWN = "a checkpoint of SAM ViT-B, ViT-L, ViT-H (sam_vit_*.pth) or MobileSAM (mobile_sam.pt)"


def load_sam(path: str | os.PathLike[str]) -> SegmentAnything:
    """Load a Segment Anything model; its weights say which one.

    Args:
        path: A published checkpoint file of `segment_anything`, or MobileSAM's (that needs the extra `sam`).

    Returns:
        The model on the CPU in float32, in eval mode.

    Raises:
        CheckpointError: The file is missing or is not such a checkpoint, or a package that its model needs is
            missing.
    """
    file = Path(path)
    weights = _weights(file)
    kind = _kind(weights, file)
    model = _mobile_sam(file) if kind == "vit_t" else sam_model_registry[kind]()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        message = " ".join(str(error).split())[:300]
        raise CheckpointError(f"The weights in {file} do not fit their model: {message}. Give {_KNOWN}.") from error
    # MobileSAM's encoder works its biases out when it enters eval mode, so that comes after loading.
    return SegmentAnything(model).eval()


def check_sam_file(path: str | os.PathLike[str]) -> None:
    """Check that a file is such a checkpoint, as far as that shows without its numbers.

    Raises:
        CheckpointError: It is missing, or is not such a checkpoint.
    """
    _kind(_weights(Path(path)), Path(path))


def _weights(file: Path) -> dict[str, Tensor]:
    if not os.path.isfile(file):  # noqa: PTH113 - false for names that no file can have, where Path.is_file raises
        raise CheckpointError(f"There is no file {shown(str(file), 300)}. Give the path of {_KNOWN}.")
    try:
        is_mapped = zipfile.is_zipfile(file)  # all but those of early releases of torch: numbers are read when used
        weights = torch.load(file, map_location="cpu", weights_only=True, mmap=is_mapped)
    except Exception as error:  # torch raises many kinds for a damaged file
        message = str(error).split("\n", 1)[0].split(". ", 1)[0]
        raise CheckpointError(f"{file} cannot be read as weights: {message}. Give {_KNOWN}.") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, Tensor) for tensor in weights.values()):
        raise CheckpointError(f"{file} is not a plain dictionary of weights. Give {_KNOWN}.")
    return weights


def _kind(weights: Mapping[str, Tensor], file: Path) -> str:
    """The name of the model that the weights are of."""
    if _TINY_VIT_WEIGHT in weights:
        return "vit_t"
    width = weights[_VIT_WEIGHT].shape[0] if _VIT_WEIGHT in weights else None
    if width not in _VIT_BY_WIDTH:
        found = "no image encoder of that kind" if width is None else f"an image encoder of width {width}"
        raise CheckpointError(f"{file} holds {found}. Give {_KNOWN}.")
    return _VIT_BY_WIDTH[width]


def _mobile_sam(file: Path) -> Any:
    try:
        with warnings.catch_warnings():
            # It imports timm by names that timm has moved, and registers its models under timm's.
            warnings.simplefilter("ignore")
            return importlib.import_module("mobile_sam").sam_model_registry["vit_t"]()
    except ImportError as error:
        raise CheckpointError(
            f"{file} is MobileSAM's, and its image encoder cannot be imported: {error}. Install 'vlm-adapters[sam]'."
        ) from error
