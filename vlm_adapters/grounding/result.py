"""The result of grounding: the phrases of a sentence, each with its mask, box, score, presence and map."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from typing_extensions import override

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.divergence import Divergence
from vlm_adapters.data.rle import encode_rle
from vlm_adapters.errors import PhraseError
from vlm_adapters.geometry import Box, Region, Size, place_map, resize_box
from vlm_adapters.grounding.display import Displayed, from_output
from vlm_adapters.limits import shown
from vlm_adapters.prompt import Phrase

Method = Literal["decoder", "box", "heads"]
"""What finds the masks: a trained decoder, boxes in the model's own words, or the attention of a few heads."""


State = Literal["found", "absent", "unlocated"]
"""What came of a phrase.

`"found"`: there is a mask. `"absent"`: the phrase is not in the image, by the threshold of what was learned, or by the
model's own words; its mask is empty. `"unlocated"`: nothing says that it is absent, and no pixel was sure enough.
"""


@dataclass(frozen=True)
class PackedMask:  # noqa: PLW1641 - dataclasses adds the hash
    """A mask in the memory of its bits, and of those around what it covers alone.

    Attributes:
        bits: `(h, ceil(w / 8))` uint8: the rows of the box, eight pixels a byte, as `numpy.packbits` packs them.
        box: `(left, top, right, bottom)` in pixels around the mask, right and bottom excluded; None if it is empty.
        size: `(H, W)` of the image.
    """

    bits: NDArray[np.uint8] = field(repr=False, hash=False)
    box: Region | None
    size: Size

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PackedMask):
            return NotImplemented
        return (self.box, self.size) == (other.box, other.size) and np.array_equal(self.bits, other.bits)

    @classmethod
    def of(cls, mask: NDArray[np.bool_], size: Size | None = None, corner: tuple[int, int] = (0, 0)) -> Self:
        """Pack a mask.

        Args:
            mask: `(h, w)` bool, a rectangle of the image beyond which the mask is false.
            size: `(H, W)` of the image; None where the rectangle is all of it.
            corner: `(left, top)` of the rectangle, in pixels of the image.
        """
        size = size or (mask.shape[0], mask.shape[1])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(np.zeros((0, 0), np.uint8), None, size)
        left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
        bits = np.packbits(mask[top:bottom, left:right], axis=1)
        across, down = corner
        return cls(bits, (left + across, top + down, right + across, bottom + down), size)

    def in_box(self) -> NDArray[np.bool_]:
        """The mask within its box: `(h, w)` bool, `(0, 0)` if it is empty."""
        if self.box is None:
            return np.zeros((0, 0), np.bool_)
        return np.unpackbits(self.bits, axis=1, count=self.box[2] - self.box[0]).view(np.bool_)

    def unpacked(self) -> NDArray[np.bool_]:
        """The mask `(H, W)` bool."""
        mask = np.zeros(self.size, np.bool_)
        if self.box is not None:
            left, top, right, bottom = self.box
            mask[top:bottom, left:right] = self.in_box()
        return mask

    def image(self) -> Image.Image:
        """The mask as an image of mode `1`."""
        height, width = self.size
        packed = np.zeros((height, (width + 7) // 8), np.uint8)
        if self.box is not None:
            left, top, right, bottom = self.box
            rows, shift = packed[top:bottom, left // 8 : (right + 7) // 8], left % 8
            rows[:, : self.bits.shape[1]] |= self.bits >> shift
            if shift:  # what a byte leaves over falls into the next
                rows[:, 1:] |= (self.bits << (8 - shift))[:, : rows.shape[1] - 1]
        return Image.frombytes("1", (width, height), packed.tobytes())

    def run_lengths(self) -> dict[str, object]:
        """The mask as COCO's compressed run lengths; see `encode_rle`."""
        return encode_rle(self.in_box(), self.size, self.box[:2] if self.box else (0, 0))

    @property
    def area(self) -> int:
        """The number of its pixels."""
        return int(np.count_nonzero(self.in_box()))


@dataclass(frozen=True)
class PhraseMap:  # noqa: PLW1641 - dataclasses adds the hash
    """A map over an image, kept as small as it is; it is placed over the pixels when it is asked for.

    Attributes:
        values: `(h, w)`, not negative, at any scale; or a mask at the image's size.
        box: Region of the image that they cover, in pixels; None where each is the value of a pixel.
        size: `(H, W)` of the image.
    """

    values: NDArray[np.float32] | PackedMask = field(repr=False, hash=False)
    box: Box | None
    size: Size

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PhraseMap):
            return NotImplemented
        mine, others = self.values, other.values
        if isinstance(mine, PackedMask) or isinstance(others, PackedMask):
            same = type(mine) is type(others) and bool(mine == others)
        else:
            same = np.array_equal(mine, others)
        return same and (self.box, self.size) == (other.box, other.size)

    @classmethod
    def of_pixels(cls, values: NDArray[np.float32] | NDArray[np.bool_]) -> Self:
        """A map that is at the image's size already: `(H, W)`; a mask is kept packed."""
        size = values.shape[0], values.shape[1]
        if values.dtype == np.bool_:
            return cls(PackedMask.of(values.astype(np.bool_, copy=False)), None, size)
        return cls(values.astype(np.float32, copy=False), None, size)

    def placed(self, size: Size | None = None) -> NDArray[np.float32]:
        """Compute the map at the image's size, or at another.

        Args:
            size: `(H', W')` of the image after it was resized; None leaves it at its size.

        Returns:
            `(H', W')` float32 in [0, 1], 1 at its peak; 0 beyond the box.
        """
        size = size or self.size
        values = self.values.unpacked() if isinstance(self.values, PackedMask) else self.values
        if self.box is None and size == self.size:
            found = values.astype(np.float32)
        else:
            box = self.box or (0, 0, self.size[1], self.size[0])
            placed = place_map(torch.from_numpy(values.astype(np.float32)), resize_box(box, self.size, size), size)
            found = placed.numpy()
        found /= max(float(found.max()), 1e-12)
        return found


@dataclass(frozen=True)
class GroundedPhrase:
    """A phrase, and where it is in the image.

    Attributes:
        phrase: The words, and where they are in the text.
        packed: The mask in an eighth of its memory, or less.
        score: Mean probability of the mask's pixels, in [0, 1]; 0 if it is empty. It measures how sharp the mask is,
            not whether the phrase is in the image. For method `heads`, the mean height of the map; for `box`, 1.
        attention: Where the phrase looks, on a grid: the attention of the heads that agree best with the mask (see
            `agreeing_maps`), that of the heads of a profile, or the filled boxes.
        presence: Probability in [0, 1] that the phrase is in the image; None where nothing can be said. That of a
            decoder with a presence head is calibrated. Without one, it is the least probability that the backbone gives
            to a token of the phrase after its first, which is not calibrated. For `box`, whether there was a box.
        absent: Whether the phrase counts as absent.
    """

    phrase: Phrase
    packed: PackedMask = field(repr=False)
    score: float
    attention: PhraseMap = field(repr=False)
    presence: float | None = None
    absent: bool = False

    @override
    def __str__(self) -> str:
        found = f"{self.score:.2f} at {self.box}" if self.box else self.state
        return f"{shown(self.phrase.text, 40)} {found}"

    @property
    def state(self) -> State:
        """What came of it: `"found"`, `"absent"` or `"unlocated"`."""
        if self.absent:
            return "absent"
        return "found" if self.packed.box else "unlocated"

    @property
    def mask(self) -> NDArray[np.bool_]:
        """`(H, W)` bool at the image's size; all false where nothing was found. It is unpacked at every access."""
        return self.packed.unpacked()

    @cached_property
    def run_lengths(self) -> dict[str, object]:
        """The mask as COCO's compressed run lengths: `{"size": [H, W], "counts": str}`."""
        return self.packed.run_lengths()

    @property
    def box(self) -> Region | None:
        """`(left, top, right, bottom)` in pixels around the mask, right and bottom excluded; None if it is empty."""
        return self.packed.box

    @property
    def map(self) -> NDArray[np.float32]:
        """The attention at the image's size: `(H, W)` float32 in [0, 1], 1 at its peak; computed at every access."""
        return self.attention.placed()


@dataclass(frozen=True, repr=False)
class Grounding(Displayed):
    """A sentence grounded in an image.

    It is a sequence of its phrases, which are found by index and by words. A notebook shows its figure. Two are equal
    if everything in them is, images and masks included.

    Attributes:
        image: The upright RGB image.
        text: The sentence.
        phrases: The phrases in the order of the prompt, each with mask, box, score, presence and map.
        method: What found the masks.
        warnings: What whoever reads the masks must know of them, such as that the model is a toy that does not know
            images like this one; empty where there is nothing to say.
        answer: The sentence as a model wrote it, with the ids of its tokens where the model read it by them; None where
            it is not an answer.
        divergence: How far the sentence is from what the model says itself, where it is an answer without ids.

    Examples:
        >>> from vlm_adapters import load_grounder, open_dataset
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> grounding = load_grounder("tiny-llava").ground(scene.image, scene.text, [scene.phrases[0].text])
        >>> for found in grounding.phrases:
        ...     print(found.phrase.text, found.box, found.mask.shape, found.mask.dtype)
        a pink cross (30, 129, 185, 292) (312, 282) bool
        >>> grounding["a pink cross"].state, len(grounding)
        ('found', 1)
    """

    image: Image.Image = field(hash=False)  # images of PIL are equal by their pixels, and have no hash
    text: str
    phrases: tuple[GroundedPhrase, ...]
    method: Method = "decoder"
    warnings: tuple[str, ...] = ()
    answer: Answer | None = None
    divergence: Divergence | None = None

    def __iter__(self) -> Iterator[GroundedPhrase]:
        return iter(self.phrases)

    def __len__(self) -> int:
        return len(self.phrases)

    def __contains__(self, item: object) -> bool:
        return any(item == (found.phrase.text if isinstance(item, str) else found) for found in self.phrases)

    def __getitem__(self, key: int | str) -> GroundedPhrase:
        """A phrase by its index, or by its words.

        Raises:
            IndexError: There are not so many phrases.
            PhraseError: No phrase, or more than one, has these words.
        """
        if not isinstance(key, str):
            return self.phrases[key]
        found = [grounded for grounded in self.phrases if grounded.phrase.text == key]
        if len(found) != 1:
            what = f"{len(found)} phrases are" if found else "No phrase is"
            remedy = "Give an index" if found else "The phrases are"
            known = [grounded.phrase.text for grounded in self.phrases]
            raise PhraseError(f"{what} {shown(key)}. {remedy}: {shown(list(range(len(known))) if found else known)}.")
        return found[0]

    @override
    def __repr__(self) -> str:
        found = ", ".join([*map(str, self.phrases[:5]), *(["..."] if len(self) > 5 else [])]) or "no phrase"
        return f"Grounding({shown(self.text)} by {self.method} in {self.image.width} x {self.image.height}: {found})"

    @override
    def figure(self) -> Image.Image:
        """Draw the sentence in colours, the image, and a heat map and a mask for every phrase."""
        drawn: Image.Image = from_output("grounding_figure")(self)
        return drawn

    def to_dict(self) -> dict[str, Any]:
        """Convert to JSON-safe values, masks as COCO's run lengths; see `vlm_adapters.output.grounding_to_dict`."""
        converted: dict[str, Any] = from_output("grounding_to_dict")(self)
        return converted


def grounded_phrase(
    phrase: Phrase,
    probability: NDArray[np.float32],
    attention: PhraseMap,
    threshold: float = 0.5,
    corner: tuple[int, int] = (0, 0),
) -> GroundedPhrase:
    """Make the result of one phrase from its probabilities at the image's size and its attention.

    Args:
        phrase: The phrase.
        probability: `(h, w)` in [0, 1], of the image or of a rectangle beyond which nothing is found.
        attention: Its attention, which gives the image's size.
        threshold: The mask is where the probability is above this, in [0, 1).
        corner: `(left, top)` of the rectangle, in pixels of the image.
    """
    mask = probability > threshold
    packed = PackedMask.of(mask, attention.size, corner)
    return GroundedPhrase(
        phrase=phrase,
        packed=packed,
        score=float(probability[mask].mean()) if packed.box else 0.0,
        attention=attention,
    )
