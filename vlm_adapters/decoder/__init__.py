"""The mask decoder: from attention maps on a grid to masks in the image."""

from vlm_adapters.decoder.losses import accuracy, dice_loss, mask_loss, mean_iou
from vlm_adapters.decoder.unet import UNet, UNetConfig

__all__ = ["UNet", "UNetConfig", "accuracy", "dice_loss", "mask_loss", "mean_iou"]
