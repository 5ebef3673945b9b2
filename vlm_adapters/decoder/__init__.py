"""The mask decoder: from attention maps on a grid to masks in the image."""

from vlm_adapters.decoder.calibration import Calibration
from vlm_adapters.decoder.features import FeatureRequest, PhraseFeatures
from vlm_adapters.decoder.logits import MaskLogits
from vlm_adapters.decoder.losses import (
    accuracy,
    cover_cells,
    decoder_loss,
    dice_loss,
    mask_loss,
    mean_iou,
    presence_loss,
)
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.presence import PresenceHead
from vlm_adapters.decoder.push import push_decoder
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner, UntrainedRefiner
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.unet import UNet, UNetConfig, normalise

__all__ = [
    "Calibration",
    "FeatureRequest",
    "MaskDecoder",
    "MaskLogits",
    "PhraseFeatures",
    "PresenceHead",
    "SAMRefiner",
    "SegmentAnything",
    "TextPrompt",
    "UNet",
    "UNetConfig",
    "UntrainedRefiner",
    "accuracy",
    "cover_cells",
    "decoder_loss",
    "dice_loss",
    "load_sam",
    "mask_loss",
    "mean_iou",
    "normalise",
    "presence_loss",
    "push_decoder",
]
