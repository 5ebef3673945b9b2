"""From coarse masks to fine ones with Segment Anything: by a trained refiner, or by a choice among its candidates.

The trained refiner is that of F-LMM (arXiv 2406.05821).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.decoder.sam.candidates import best_candidates
from vlm_adapters.decoder.sam.geometry import (
    PHRASES_AT_ONCE,
    Frame,
    coarse_boxes,
    mask_prompt,
)
from vlm_adapters.decoder.sam.model import EncodedImage, SegmentAnything
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.errors import DecoderError
from vlm_adapters.geometry import Box, place_map


@dataclass(frozen=True)
class RefinedLogits:
    """The refined logits of the phrases of one image, as small as they were decoded.

    Attributes:
        decoded: `(P, side, side)` float32 over the canvas.
        frame: The image on the canvas.
        coarse: `(P, h, w)` logits that are added at the image's size; None for none.
        box: Region of the image that `coarse` covers.
    """

    decoded: Tensor = field(repr=False)
    frame: Frame
    coarse: Tensor | None = field(default=None, repr=False)
    box: Box = (0, 0, 1, 1)

    def of_phrase(self, index: int) -> RefinedLogits:
        """Those of one phrase."""
        one = slice(index, index + 1)
        return replace(self, decoded=self.decoded[one], coarse=None if self.coarse is None else self.coarse[one])

    def at_image_size(self) -> Tensor:
        """`(P, H, W)` float32. A mask is `> 0`."""
        if not len(self.decoded):
            return self.decoded.new_zeros(0, *self.frame.size)
        placed = self.frame.to_image(self.decoded[:, None])[:, 0]
        if self.coarse is None:
            return placed
        return placed + place_map(self.coarse, self.box, self.frame.size).to(placed.device)


class SAMRefiner(nn.Module):
    """Refines the coarse masks of phrases; trained together with the U-Net that gives them.

    Attributes:
        sam: The model; all of it but its image encoder is trained.
        text: Makes prompts of the phrases' hidden states; None without them.
        use_mask: Prompt with the coarse logits; through them gradient flows into the U-Net.
        use_box: Prompt with the box around the coarse mask.
        use_text: Prompt with the phrase's tokens.
    """

    description: ClassVar[str] = "refined by Segment Anything"

    def __init__(
        self,
        sam: SegmentAnything,
        text: TextPrompt | None = None,
        *,
        use_mask: bool = True,
        use_box: bool = True,
        use_text: bool = True,
    ) -> None:
        super().__init__()
        if not (use_mask or use_box or use_text):
            raise DecoderError("A refiner without mask, box and text has no prompt. Use at least one.")
        if use_text and text is None:
            raise DecoderError("use_text needs a TextPrompt. Give one of the backbone's size, or use_text=False.")
        if text is not None and text.projection.out_features != sam.prompt_width:
            raise DecoderError(
                f"The text prompt gives tokens of width {text.projection.out_features}, and the model takes "
                f"{sam.prompt_width}. Build it with width={sam.prompt_width}."
            )
        self.sam = sam
        self.text = text
        self.use_mask, self.use_box, self.use_text = use_mask, use_box, use_text

    @classmethod
    def of(cls, sam: SegmentAnything, info: BackboneInfo, *, use_text: bool = True, **prompts: bool) -> Self:
        """Build a refiner of a backbone's size; the text prompt, if there is one, has random weights.

        Args:
            sam: The model.
            info: Description of the backbone.
            use_text: Whether to prompt with the phrase's tokens.
            prompts: `use_mask` and `use_box`, as the constructor takes them.
        """
        text = TextPrompt(info.hidden_size, info.num_layers, sam.prompt_width) if use_text else None
        return cls(sam, text, use_text=use_text, **prompts)

    @property
    def prompts(self) -> dict[str, bool]:
        """Whether each kind of prompt is used, by the names of the constructor's arguments."""
        return {"use_mask": self.use_mask, "use_box": self.use_box, "use_text": self.use_text}

    def trained_weights(self) -> dict[str, Tensor]:
        """The tensors that training changes: all but the image encoder's."""
        return {name: tensor.detach() for name, tensor in self.named_parameters() if tensor.requires_grad}

    def forward(self, image: EncodedImage, logits: Tensor, box: Box, hidden: Sequence[Tensor] | None = None) -> Tensor:
        """Refine the masks of all phrases of one image; those of equal token count are decoded as one batch.

        Args:
            image: Image, as `sam.encode` gives it.
            logits: `(P, h, w)` coarse mask logits; P may be 0.
            box: Region of the image that they cover.
            hidden: For every phrase `(L, T, D)`, as in `Grids.phrase_hidden`; not read without `use_text`.

        Returns:
            `(P, H, W)` float32 logits at the image's size. A mask is `> 0`.

        Raises:
            DecoderError: The logits, the hidden states or the image do not fit.
        """
        return self.refine(image, logits, box, hidden).at_image_size()

    def refine(
        self, image: EncodedImage, logits: Tensor, box: Box, hidden: Sequence[Tensor] | None = None
    ) -> RefinedLogits:
        """Refine as `forward` does, and leave the logits at the size at which they were decoded."""
        _check_logits(logits)
        frame = image.frame
        tokens = self._tokens(hidden, len(logits))
        if not len(logits):
            return RefinedLogits(logits.new_zeros(0, 1, 1, dtype=torch.float32), frame)
        boxes = coarse_boxes(logits.detach(), box, frame.size) if self.use_box else None
        masks = mask_prompt(logits, box, frame, self.sam.mask_side) if self.use_mask else None
        groups = _of_equal_length(tokens)
        decoded = [
            self.sam.decode(
                image,
                boxes=None if boxes is None else boxes[group],
                masks=None if masks is None else masks[group],
                tokens=torch.stack([tokens[phrase] for phrase in group]),
            )[:, 0]
            for group in groups
        ]
        order = torch.tensor([phrase for group in groups for phrase in group]).argsort()
        return RefinedLogits(torch.cat(decoded)[order.to(decoded[0].device)], frame)

    def _tokens(self, hidden: Sequence[Tensor] | None, count: int) -> list[Tensor]:
        """Prompts `(T, width)` of every phrase; T is 0 without text."""
        if not self.use_text or self.text is None:
            return [torch.zeros(0, self.sam.prompt_width)] * count
        if hidden is None or len(hidden) != count:
            found = "no hidden states" if hidden is None else f"the hidden states of {len(hidden)} phrases"
            raise DecoderError(
                f"There are {count} coarse masks and {found}. Give those of every phrase "
                "(GridRequest.phrase_hidden_layers), or build the refiner with use_text=False."
            )
        return [self.text(states) for states in hidden]


class UntrainedRefiner(nn.Module):
    """Refines with a model that was never trained on the coarse masks: see `refine_untrained`.

    Attributes:
        sam: The model.
        use_text: False: words are not a prompt of it.
    """

    description: ClassVar[str] = "refined by Segment Anything as it is"
    use_text: ClassVar[bool] = False

    def __init__(self, sam: SegmentAnything) -> None:
        super().__init__()
        self.sam = sam

    def forward(self, image: EncodedImage, logits: Tensor, box: Box, hidden: Sequence[Tensor] | None = None) -> Tensor:
        """Refine as `SAMRefiner` does; `hidden` is not read, and no gradient flows."""
        return self.refine(image, logits, box, hidden).at_image_size()

    def refine(
        self, image: EncodedImage, logits: Tensor, box: Box, hidden: Sequence[Tensor] | None = None
    ) -> RefinedLogits:
        """Refine as `forward` does, and leave the logits at the size at which they were decoded."""
        del hidden
        return refine_untrained(self.sam, image, logits, box)


@torch.no_grad()
def refine_untrained(sam: SegmentAnything, image: EncodedImage, logits: Tensor, box: Box) -> RefinedLogits:
    """Refine coarse masks with a model that was never trained on them.

    Of the candidates of several prompts (see `best_candidates`) the one is kept that agrees most with the coarse mask
    and has the sharpest outline. If that is sharp, the mask stands; if not, the logits of the coarse mask are added: at
    the edges, where they are near 0, the model decides; inside, its slips do not count.

    Args:
        sam: The model.
        image: Image, as `sam.encode` gives it.
        logits: `(P, h, w)` coarse mask logits; P may be 0.
        box: Region of the image that they cover.

    Raises:
        DecoderError: The logits or the image do not fit.
    """
    _check_logits(logits)
    frame = image.frame
    if not len(logits):
        return RefinedLogits(logits.new_zeros(0, 1, 1, dtype=torch.float32), frame)
    masks = mask_prompt(logits, box, frame, sam.mask_side)
    chosen = [
        best_candidates(sam, image, some, box, prompts)
        for some, prompts in zip(logits.split(PHRASES_AT_ONCE), masks.split(PHRASES_AT_ONCE), strict=True)
    ]
    is_sharp = torch.cat([some.is_sharp for some in chosen]).to(logits.device)
    added = logits.detach().masked_fill(is_sharp[:, None, None], 0)
    return RefinedLogits(torch.cat([some.decoded for some in chosen]), frame, added, box)


def _of_equal_length(tokens: Sequence[Tensor]) -> list[list[int]]:
    """Indices of phrases, those with the same number of tokens together, at most `PHRASES_AT_ONCE`."""
    groups: dict[int, list[int]] = {}
    for phrase, prompts in enumerate(tokens):
        groups.setdefault(len(prompts), []).append(phrase)
    starts = ((group, first) for group in groups.values() for first in range(0, len(group), PHRASES_AT_ONCE))
    return [group[first : first + PHRASES_AT_ONCE] for group, first in starts]


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 3 or min(logits.shape[1:]) < 1:
        raise DecoderError(
            f"The coarse logits have shape {tuple(logits.shape)}. Give (phrases, h, w) of at least one cell."
        )
