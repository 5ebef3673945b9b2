"""A trained model from which one of another family learns: its tower says alike, its language model begins alike."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the name everyone knows
from trainee import Trainee
from warm_start import copy_words

WEIGHT = 4.0
"""Of the difference from the teacher's features, beside the loss of the labels."""


class Teacher:
    """A finished training of a family whose images are padded to a square.

    Args:
        trainee: What was trained.
    """

    def __init__(self, trainee: Trainee) -> None:
        self._trainee = trainee.eval().requires_grad_(requires_grad=False)

    def pass_on(self, student: Trainee) -> None:
        """Give a student all that both have: the language model, the temporary heads, and words by their spelling."""
        weights = self._trainee.state_dict()
        with torch.no_grad():
            for name, weight in student.state_dict().items():
                if name in weights and weight.shape == weights[name].shape:
                    weight.copy_(weights[name])
        old, new = (trainee.family.processor.tokenizer for trainee in (self._trainee, student))
        tables = (trainee.model.get_input_embeddings().weight for trainee in (student, self._trainee))
        copy_words(*tables, old.get_vocab(), new)

    def feature_loss(self, features: Tensor, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """Mean squared difference of features `(B, h * w, D)` from the teacher's, in units of their variance.

        Args:
            features: Of images.
            pixels: The images `(B, 3, H, W)` uint8.
            grid: Rows `h` and columns `w` of their image tokens.
        """
        wanted = self._features(pixels, grid)
        return WEIGHT * F.mse_loss(features.float(), wanted) / wanted.var()

    def _features(self, pixels: Tensor, grid: tuple[int, int]) -> Tensor:
        """What the teacher sees `(B, h * w, D)` where the cells of a grid over images `(B, 3, H, W)` are."""
        family, (height, width) = self._trainee.family, pixels.shape[-2:]
        scale = family.side / max(height, width)
        size = [round(height * scale), round(width * scale)]
        resized = F.interpolate(pixels.float(), size=size, mode="bilinear", antialias=True)
        mean = torch.tensor(family.processor.image_processor.image_mean).mul(255).view(3, 1, 1)
        framed = family.frame(resized - mean) + mean
        cells = family.side // family.patch
        seen = family.see(self._trainee.model, family.normalise(framed)).float()
        seen = seen.transpose(1, 2).unflatten(2, (cells, cells))
        # Centres of the cells, as shares of the square that the image is padded to.
        down, across = (
            ((family.side - part) // 2 + (torch.arange(count) + 0.5) * part / count) / family.side * 2 - 1
            for part, count in zip(size, grid, strict=True)
        )
        at = torch.stack(torch.meshgrid(across, down, indexing="xy"), -1).expand(len(pixels), -1, -1, -1)
        return F.grid_sample(seen, at, align_corners=False, padding_mode="border").flatten(2).transpose(1, 2)
