"""Segment Anything as a part that is trained: the image encoded once and frozen, prompts and masks with gradient."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import torch
from PIL import Image
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor, nn

from vlm_adapters.decoder.sam.geometry import Frame
from vlm_adapters.decoder.sam.points import PointPrompts
from vlm_adapters.errors import DecoderError
from vlm_adapters.images import ImageSource, load_image

# In bfloat16 the frequencies would move a corner of a box by a pixel, and the mean a colour by a fifth of its step.
_EXACT = (("prompt_encoder.pe_layer", "positional_encoding_gaussian_matrix"), ("", "pixel_mean"), ("", "pixel_std"))


@dataclass(frozen=True)
class EncodedImage:
    """What the image encoder made of an image: computed once, good for any number of prompts, and worth keeping.

    Attributes:
        features: `(1, C, h, w)`; `(1, 256, 64, 64)` for all published models.
        frame: The image's size, and how it lies on the canvas.
    """

    features: Tensor = field(repr=False)
    frame: Frame


class SegmentAnything(nn.Module):
    """A Segment Anything model whose image encoder is frozen and always in eval mode.

    Runs on any device; its weights may be float32 or bfloat16, as a whole or the image encoder alone, or float32 under
    autocast. Positions are computed in float32 in each case.

    Attributes:
        model: A model of `segment_anything`, or one of the same parts; it becomes a part of this module.
        half_precision: Whether the image encoder computes in bfloat16. None: on a CUDA device that has it. Masks change
            by as much as docs/results.md says.
    """

    half_precision: bool | None = None

    def __init__(self, model: Sam) -> None:
        super().__init__()
        self.model = model
        model.image_encoder.requires_grad_(requires_grad=False).eval()
        for path, name in _EXACT:
            owner = model.get_submodule(path)
            setattr(owner, name, getattr(owner, name).float())

    @property
    def image_encoder(self) -> str:
        """Class and size of the image encoder, by which another one is noticed."""
        encoder = self.model.image_encoder
        return f"{type(encoder).__name__} of {sum(tensor.numel() for tensor in encoder.parameters()):,} weights"

    @property
    def prompt_width(self) -> int:
        """Numbers of one prompt token; 256 for all published models."""
        return int(self.model.prompt_encoder.embed_dim)

    @property
    def mask_side(self) -> int:
        """Side of mask prompts and of decoded masks, in cells; 256 for all published models."""
        return int(self.model.prompt_encoder.mask_input_size[0])

    @torch.no_grad()
    def encode(self, source: ImageSource) -> EncodedImage:
        """Encode an image, as `segment_anything.SamPredictor` does.

        Args:
            source: Any form of image that `load_image` takes.

        Raises:
            ImageError: The image cannot be used.
        """
        image = load_image(source)
        side = int(self.model.image_encoder.img_size)
        pixels = torch.from_numpy(ResizeLongestSide(side).apply_image(np.asarray(image))).permute(2, 0, 1)[None]
        canvas = self.model.preprocess(pixels.to(self.model.device).float())
        dtype = next(self.model.image_encoder.parameters()).dtype
        half = self.encodes_in_half_precision(canvas.device)
        with torch.autocast(canvas.device.type, torch.bfloat16) if half else nullcontext():
            features = self.model.image_encoder(canvas.to(dtype))
        return EncodedImage(features.to(dtype), Frame((image.height, image.width), side))

    def encodes_in_half_precision(self, device: torch.device) -> bool:
        """Whether the image encoder computes in bfloat16 on this device; see `half_precision`."""
        if self.half_precision is not None:
            return self.half_precision
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)

    def decode(
        self,
        image: EncodedImage,
        *,
        points: PointPrompts | None = None,
        boxes: Tensor | None = None,
        masks: Tensor | None = None,
        tokens: Tensor | None = None,
    ) -> Tensor:
        """Turn the prompts of P masks into masks, as one batch. At least one kind of prompt must be there.

        Args:
            image: Image, as `encode` gives it.
            points: For every mask as many points inside and outside it, in pixels of the image.
            boxes: `(P, 4)`: left, top, right, bottom, in pixels of the image.
            masks: `(P, 1, side, side)` logits, of `mask_prompt`.
            tokens: `(P, T, prompt_width)`: prompts that are embedded already.

        Returns:
            `(P, 4, side, side)` float32 logits over the canvas: the mask for a prompt that leaves no doubt, then three
            for one that does.

        Raises:
            DecoderError: The image was encoded by a model of another size.
        """
        encoder, decoder = self.model.prompt_encoder, self.model.mask_decoder
        self._check(image)
        dtype, device = decoder.mask_tokens.weight.dtype, decoder.mask_tokens.weight.device
        placed = None
        if points is not None:
            placed = image.frame.on_canvas(points.places.to(device)), points.labels.to(device)
        if boxes is not None:
            boxes = image.frame.on_canvas(boxes.to(device).view(-1, 2, 2)).flatten(1)
        without_autocast: AbstractContextManager[object] = nullcontext()  # the meta device has none
        if torch.amp.is_autocast_available(device.type):
            without_autocast = torch.autocast(device.type, enabled=False)
        with without_autocast:
            sparse, dense = encoder(
                points=placed,
                boxes=boxes,
                masks=None if masks is None else masks.to(device, dtype),
            )
            positions = encoder.get_dense_pe().to(dtype)
        if tokens is not None:
            sparse = torch.cat([sparse.to(dtype).expand(len(tokens), -1, -1), tokens.to(device, dtype)], dim=1)
        decoded: Tensor = decoder.predict_masks(
            image_embeddings=image.features.to(device, dtype),
            image_pe=positions,
            sparse_prompt_embeddings=sparse.to(dtype),
            dense_prompt_embeddings=dense,
        )[0]
        return decoded.float()

    def at_image_size(self, decoded: Tensor, image: EncodedImage) -> Tensor:
        """Bring decoded masks `(P, n, side, side)` to the image, bilinearly, without the padding: `(P, n, H, W)`."""
        return image.frame.to_image(decoded)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """Set the mode of everything but the image encoder, which stays in eval mode."""
        super().train(mode)
        self.model.image_encoder.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's
        """Move or cast all tensors, but cast none of `_EXACT`."""
        exact = [(self.model.get_submodule(path), name) for path, name in _EXACT]
        tensors = [getattr(owner, name) for owner, name in exact]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for (owner, name), tensor in zip(exact, tensors, strict=True):
            setattr(owner, name, tensor.to(getattr(owner, name).device))
        return self

    def _check(self, image: EncodedImage) -> None:
        encoder: Any = self.model.prompt_encoder
        expected = (1, encoder.embed_dim, *encoder.image_embedding_size)
        side = int(self.model.image_encoder.img_size)
        if tuple(image.features.shape) != expected or image.frame.side != side:
            raise DecoderError(
                f"The encoded image has features {tuple(image.features.shape)} on a canvas of {image.frame.side} "
                f"pixels, and this model needs {expected} on {side}. Encode the image with the model that decodes it."
            )


def encoding_once(sam: SegmentAnything) -> Callable[[Image.Image], EncodedImage]:
    """The encoder of a model that encodes equal images once: it keeps what it made."""
    encoded: dict[bytes, EncodedImage] = {}

    def encode(image: Image.Image) -> EncodedImage:
        digest = hashlib.sha256(f"{image.size}".encode() + image.tobytes()).digest()
        if digest not in encoded:
            encoded[digest] = sam.encode(image)
        return encoded[digest]

    return encode
