"""The published weights of F-LMM under our names. Only names and shapes are known here, none of its code."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything import sam_model_registry
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import CheckpointError
from vlm_adapters.limits import shown

_RENAMED = (
    (r"mask_head\.encoder\.0\.0\.convs\.(\d)\.", r"unet.encoder.0.\1."),
    (r"mask_head\.encoder\.([1-9])\.1\.convs\.(\d)\.", r"unet.encoder.\1.\2."),
    (r"mask_head\.decoder\.(\d)\.upsample\.interp_upsample\.1\.", r"unet.decoder.\1.narrow."),
    (r"mask_head\.decoder\.(\d)\.conv_block\.convs\.(\d)\.", r"unet.decoder.\1.block.\2."),
    (r"mask_head\.conv_seg\.", "unet.head."),
    (r"text_proj\.", "refiner.text.projection."),
    (r"text_layer_weights$", "refiner.text.layer_weights"),
    (r"sam\.model\.(prompt_encoder|mask_decoder)\.", r"refiner.sam.model.\1."),
)
_FIXED = "refiner.sam.model.prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
"""Not trained, the same in every model: a checkpoint may hold it or not."""


@dataclass(frozen=True)
class Difference:
    """A tensor that is missing, surplus or misshapen.

    Attributes:
        name: Published name, or ours where it has none.
        expected: Shape that it should have; None if it should not be there.
        found: Shape that it has; None if it is not there.
    """

    name: str
    expected: tuple[int, ...] | None
    found: tuple[int, ...] | None


def read_flmm(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a checkpoint file: tensors by name, or such under `state_dict`. Code in it is never run.

    Raises:
        CheckpointError: It is not there, needs code to be read, or holds no tensors by name.
    """
    file = Path(path)
    if not os.path.isfile(file):  # noqa: PTH113 - false for names that no file can have, where Path.is_file raises
        raise CheckpointError(f"There is no file {shown(str(file), 300)}. Give a checkpoint of F-LMM (.pth).")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file
        message = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{file} cannot be read as plain tensors: {message}. Nothing else is read from it; save its "
            "state_dict alone."
        ) from error
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(t, Tensor) for t in weights.values()):
        raise CheckpointError(f"{file} holds no tensors by name. Give a checkpoint of F-LMM (.pth).")
    return weights


def compare_flmm(weights: Mapping[str, Tensor], info: BackboneInfo) -> list[Difference]:
    """List the tensors in which a checkpoint differs from one for this backbone; an empty list means that it fits.

    Args:
        weights: Tensors, as `read_flmm` gives them.
        info: Description of the backbone; sizes the U-Net and the text prompt.
    """
    expected = _expected(info)
    names = {our_name(name): name for name in weights}
    differences = [
        Difference(names.get(name, name), shape, tuple(weights[names[name]].shape) if name in names else None)
        for name, shape in expected.items()
        if name not in names or tuple(weights[names[name]].shape) != shape
    ]
    surplus = [theirs for ours, theirs in names.items() if ours not in expected and ours != _FIXED]
    return differences + [Difference(name, None, tuple(weights[name].shape)) for name in surplus]


def convert_flmm(weights: Mapping[str, Tensor], info: BackboneInfo) -> dict[str, Tensor]:
    """Give a checkpoint's tensors the names that they have in a `MaskDecoder`.

    Raises:
        CheckpointError: It does not fit the backbone, as `compare_flmm` explains.
    """
    if differences := compare_flmm(weights, info):
        raise CheckpointError(
            f"The checkpoint does not fit {info.model_type} ({info.channels} channels, width {info.hidden_size}): "
            f"{len(differences)} tensors differ, the first is {differences[0].name}. Name the backbone that it was "
            "trained on."
        )
    return {our_name(name): tensor.clone() for name, tensor in weights.items() if our_name(name) != _FIXED}


def write_flmm(weights: Mapping[str, Tensor], info: BackboneInfo, folder: Path) -> None:
    """Write a checkpoint as a decoder's folder, which `GroundedVLM.from_pretrained` reads.

    Args:
        weights: Tensors, as `read_flmm` gives them.
        info: Description of the backbone that they were trained on.
        folder: Folder to write.

    Raises:
        CheckpointError: It does not fit the backbone; nothing is written then.
    """
    converted = convert_flmm(weights, info)
    decoder = _decoder(info)
    decoder.load_state_dict(converted, strict=False, assign=True)  # the image encoder stays without values
    decoder.save(folder, info)


def our_name(published: str) -> str:
    """Our name for a published one; a name without a rule stays."""
    for pattern, ours in _RENAMED:
        renamed, found = re.subn(f"^{pattern}", ours, published)
        if found:
            return re.sub(r"\.gn\.", ".norm.", renamed) if renamed.startswith("unet.") else renamed
    return published


def _expected(info: BackboneInfo) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in _decoder(info).trainable_parameters().items()}


def _decoder(info: BackboneInfo) -> MaskDecoder:
    """F-LMM's decoder for a backbone, without values."""
    with torch.device("meta"):
        refiner = SAMRefiner.of(SegmentAnything(sam_model_registry["vit_l"]()), info)
        return MaskDecoder(UNet(UNetConfig(info.channels)), refiner=refiner)
