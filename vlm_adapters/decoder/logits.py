"""The logits of masks: what a decoder gives of the phrases of an image, before they are cut off."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from vlm_adapters.decoder.sam.refiner import RefinedLogits
from vlm_adapters.geometry import Region, place_map, region_of

MASK_THRESHOLD = 0.5
"""A pixel is in a mask where its probability is above this."""


@dataclass(frozen=True)
class MaskLogits:
    """The logits of the phrases of one image, with gradient where it is enabled.

    Attributes:
        maps: `(P, C, h, w)` attention that was read.
        coarse: `(P, h', w')` logits of the U-Net.
        box: Region of the image that both cover.
        fine: Logits of the refiner; None without one.
        presence: `(P,)` logits of whether each phrase is in the image, before calibration; None of a decoder without a
            presence head.
        least_probabilities: `(P,)` in [0, 1]: the least that the backbone gives to a token of each phrase after its
            first; None where it was not extracted.
    """

    maps: Tensor = field(repr=False)
    coarse: Tensor = field(repr=False)
    box: tuple[float, float, float, float]
    fine: RefinedLogits | None = field(default=None, repr=False)
    presence: Tensor | None = field(default=None, repr=False)
    least_probabilities: Tensor | None = field(default=None, repr=False)

    @property
    def refined(self) -> Tensor | None:
        """`(P, H, W)` logits of the refiner at the image's size, made at every access; None without one."""
        return None if self.fine is None else self.fine.at_image_size()

    def by_phrase(self) -> Iterator[MaskLogits]:
        """Yield the mask logits of one phrase after another: at the image's size, those of all would take gigabytes."""
        for index in range(len(self.coarse)):
            one, fine = slice(index, index + 1), None if self.fine is None else self.fine.of_phrase(index)
            yield MaskLogits(self.maps[one], self.coarse[one], self.box, fine)

    def where_positive(self, size: tuple[int, int]) -> tuple[Tensor, Region]:
        """The best logits of some pixels of an image: of all that are in a mask, and of those between them.

        Args:
            size: `(H, W)` of the image.

        Returns:
            `(P, h, w)`, and the region that they are of, without pixels if all masks are empty.
        """
        if self.fine is None:
            region = region_of((self.coarse > 0).any(dim=0), self.box, size) or (0, 0, 0, 0)
            return self.coarse_at_image_size(size, region), region
        found = self.fine.at_image_size()
        positive = (found > 0).any(dim=0)
        region = region_of(positive, (0, 0, size[1], size[0]), size) or (0, 0, 0, 0)
        return found[:, region[1] : region[3], region[0] : region[2]], region

    def at_image_size(self, size: tuple[int, int]) -> Tensor:
        """The best logits there are: the refined ones, else the coarse ones, at an image's size.

        Args:
            size: `(H, W)` of the image.

        Returns:
            `(P, H, W)`.
        """
        return self.coarse_at_image_size(size) if self.fine is None else self.fine.at_image_size()

    def coarse_at_image_size(self, size: tuple[int, int], region: Region | None = None) -> Tensor:
        """The coarse logits at an image's size; minus infinity where the grid does not reach.

        Args:
            size: `(H, W)` of the image.
            region: The pixels that are wanted; None for all.

        Returns:
            `(P, H, W)`, or of the region's size.
        """
        return place_map(self.coarse, self.box, size, outside=float("-inf"), region=region)


def binary_masks(logits: Tensor) -> Tensor:
    """Masks, bool and of the same shape, from logits."""
    return logits.sigmoid() > MASK_THRESHOLD
