"""What is trained: the U-Net, and with it the refiner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vlm_adapters.decoder.checkpoint import StoredDecoder, saved_refiner, trained_weights
from vlm_adapters.decoder.features import MaskLogits, decode_masks
from vlm_adapters.decoder.losses import cover_cells, dice_loss, mask_loss
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.saved import SavedDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.geometry import place_map
from vlm_adapters.training.cache.fingerprint import FeaturePlan
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import ExtractedSample


class Trainee(nn.Module):
    """A U-Net and, if there is one, the refiner of its masks.

    Args:
        decoder: The U-Net.
        refiner: Its Segment Anything model's image encoder stays frozen.
    """

    def __init__(self, decoder: UNet, refiner: SAMRefiner | None = None) -> None:
        super().__init__()
        # convolutions on a processor are faster with the channels last
        self.decoder = decoder.to(memory_format=torch.channels_last)
        self.refiner = refiner

    @classmethod
    def of(cls, recipe: Recipe, plan: FeaturePlan, sam: SegmentAnything | None) -> Self:
        """Build it with random weights, drawn from the recipe's seed."""
        torch.manual_seed(recipe.seed)
        decoder = UNet(UNetConfig(plan.features.channels(plan.backbone), **recipe.decoder.model_dump()))
        if recipe.refiner is None or sam is None:
            return cls(decoder)
        prompts = recipe.refiner.model_dump(exclude={"sam"})
        text = TextPrompt(plan.backbone.hidden_size, plan.backbone.num_layers, sam.prompt_width)
        return cls(decoder, SAMRefiner(sam, text if recipe.refiner.use_text else None, **prompts))

    @property
    def device(self) -> torch.device:
        """Where it is."""
        return self.decoder.head.weight.device

    def trained(self) -> dict[str, nn.Parameter]:
        """Its parameters that learn, by name."""
        return {name: weight for name, weight in self.named_parameters() if weight.requires_grad}

    def forward(self, samples: Sequence[ExtractedSample]) -> list[MaskLogits]:
        """Compute the logits of every sample's phrases."""
        features = [sample.features.to(self.device) for sample in samples]
        return decode_masks(features, self.decoder, self.refiner, [sample.image for sample in samples])

    def loss(self, samples: Sequence[ExtractedSample]) -> Tensor:
        """The loss of every sample times its number of phrases, summed: divide by the phrases of the whole batch.

        Of a sample: binary cross entropy and Dice loss of the coarse logits against the share of every cell that is
        covered, and of the refined ones against the masks at the image's size, each with weight 1 (F-LMM, arXiv
        2406.05821).
        """
        total = torch.zeros((), device=self.device)
        for sample, found in zip(samples, self(samples), strict=True):
            cells = (found.coarse.shape[1], found.coarse.shape[2])
            cover = cover_cells(sample.masks, found.box, cells).to(self.device)
            loss = mask_loss(found.coarse, cover) + dice_loss(found.coarse, cover)
            if found.refined is not None:
                masks = torch.from_numpy(sample.masks).to(self.device)
                loss = loss + mask_loss(found.refined, masks) + dice_loss(found.refined, masks)
            total = total + loss * len(sample.masks)
        return total

    @torch.no_grad()
    def masks(self, samples: Sequence[ExtractedSample]) -> list[NDArray[np.bool_]]:
        """Find the masks `(P, H, W)` of every sample."""
        found = []
        for sample, logits in zip(samples, self(samples), strict=True):
            height, width = sample.masks.shape[1:]
            placed = logits.refined
            if placed is None:
                placed = place_map(logits.coarse, logits.box, (height, width), outside=float("-inf"))
            found.append((placed > 0).cpu().numpy())
        return found

    def save(self, folder: Path, plan: FeaturePlan) -> None:
        """Write it as a decoder's folder, which `GroundedVLM.from_pretrained` reads."""
        request = replace(plan.features, hidden=self.refiner is not None and self.refiner.use_text)
        config = SavedDecoder.of(plan.backbone, self.decoder.config, request)
        if self.refiner:
            config = config.model_copy(update={"refiner": saved_refiner(self.refiner)})
        weights = trained_weights(self.refiner) if self.refiner else {}
        StoredDecoder(config, self.decoder.state_dict(), weights).write(folder)
