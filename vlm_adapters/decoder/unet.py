"""The coarse mask head: a U-Net that turns a phrase's attention maps into mask logits.

Architecture and sizes are those of F-LMM (arXiv 2406.05821): its published weights can be carried over by renaming.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlm_adapters.errors import DecoderError
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.registry.versions import typed_errors

_SMALLEST_SUM = 1e-12

_NUMBERS_AT_ONCE = 2**26
"""Numbers of the largest features that are computed at once: 256 MiB in float32."""


@dataclass(frozen=True)
class UNetConfig:
    """The sizes of a U-Net.

    Attributes:
        channels: Attention maps per phrase, layers times heads; channel = layer * heads + head.
        base_width: Channels of the first stage; every further stage doubles them.
        depth: Stages of the encoder. The image is halved between them.
        canvas: Maps whose long side is shorter are enlarged to this long side, in cells.
    """

    channels: int
    base_width: int = 64
    depth: int = 4
    canvas: int = 64

    def __post_init__(self) -> None:
        for name in ("channels", "base_width", "depth", "canvas"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise DecoderError(f"UNetConfig.{name} is {shown(value)}. Give an integer of at least 1.")

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of every stage, from fine to coarse."""
        return tuple(self.base_width * 2**stage for stage in range(self.depth))

    def scale(self, h: int, w: int) -> float:
        """How many times maps of `h` x `w` cells are enlarged: to the canvas by their long side, never shrunk."""
        return max(1.0, self.canvas / max(h, w))

    def output_size(self, h: int, w: int) -> tuple[int, int]:
        """Size of the logits for maps of `h` x `w` cells: times `scale(h, w)`, rounded down.

        It is rounded as F-LMM and torch do, in floating point: a side of 49 cells becomes 63, not 64.
        """
        scale = self.scale(h, w)
        return int(h * scale), int(w * scale)


def check_sizes(
    folder: Path, config: UNetConfig, weights: Mapping[str, Tensor], limits: Limits = DEFAULT_LIMITS
) -> None:
    """Compare sizes that a file names with the weights beside it, before anything of these sizes is made.

    Raises:
        DecoderError: The weights have other shapes, or the canvas is beyond the limits.
    """
    if config.canvas > limits.max_canvas:
        raise DecoderError(
            f"The canvas of the decoder in {folder} is {shown(config.canvas)} cells; at most {limits.max_canvas} are "
            "allowed. Correct its config.json, or pass limits=Limits(max_canvas=...)."
        )
    expected: dict[str, tuple[int, ...]] = {}
    if config.depth <= len(weights):  # every stage has weights; more stages would take long to build
        with typed_errors(f"Building {config}", DecoderError), torch.device("meta"):
            expected = {name: tuple(tensor.shape) for name, tensor in UNet(config).state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if differing := sorted(name for name in {*expected, *found} if expected.get(name) != found.get(name)):
        first = differing[0]
        raise DecoderError(
            f"The weights in {folder} do not fit its config: {len(differing)} tensors differ, the first is {first}, "
            f"expected {expected.get(first, 'none')}, found {found.get(first, 'none')}. Give the folder as "
            "save_pretrained wrote it."
        )


class UNet(nn.Module):
    """Attention maps to mask logits.

    `encoder[i]` and `decoder[i]` work at the same resolution, index 0 the finest; the decoder runs from the last index
    to the first.

    Args:
        config: The sizes. At `base_width` 64 and `depth` 4 there are 7,182,785 + 576 * channels parameters.
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.widths
        self.encoder = nn.ModuleList(ConvBlock(before, after) for before, after in pairwise((config.channels, *widths)))
        self.decoder = nn.ModuleList(UpBlock(coarse, fine) for fine, coarse in pairwise(widths))
        self.head = nn.Conv2d(config.base_width, 1, kernel_size=1)
        self.apply(_initialise)

    def forward(self, maps: Tensor) -> Tensor:
        """Compute mask logits.

        Args:
            maps: Attention (B, C, h, w) in grid cells, of any float type, not negative; the scale of a map does not
                matter, since each is divided by its sum. B is the number of phrases and may be 0.

        Returns:
            Logits (B, h', w') in the type of the weights, with `(h', w') = config.output_size(h, w)`; they cover the
            whole region of the maps. A mask is `logits > 0`.

            Maps are enlarged as in F-LMM: sampled every `1 / scale` cells from the top left, which leaves out less
            than one of the logits' cells at the bottom and right where a size was rounded down. The logits are still
            spread over the whole region, in training and in use alike, since its published weights learned to fill it.

        Raises:
            DecoderError: The maps have another number of dimensions or of channels, or no cells.
        """
        self._check(maps)
        if torch.is_grad_enabled() or not len(maps):  # with gradient everything is kept in any case
            return self._logits(maps)
        return torch.cat([self._logits(some) for some in maps.split(self._at_once(*maps.shape[2:]))])

    def _at_once(self, h: int, w: int) -> int:
        """Number of phrases whose features fit into the memory that is taken at once."""
        cells = prod(self.config.output_size(h, w))
        return max(1, _NUMBERS_AT_ONCE // (cells * max(self.config.channels, 8 * self.config.base_width)))

    def _logits(self, maps: Tensor) -> Tensor:
        features = _enlarged(normalise(maps), self.config.scale(maps.shape[2], maps.shape[3]))
        h, w = features.shape[2:]
        features = _padded(features.to(self.head.weight.dtype), 2 ** (self.config.depth - 1))
        skips: list[Tensor] = []
        for stage in self.encoder:
            features = stage(functional.max_pool2d(features, 2) if skips else features)
            skips.append(features)
        for index in reversed(range(len(self.decoder))):
            features = self.decoder[index](features, skips[index])
        logits: Tensor = self.head(features[:, :, :h, :w])
        return logits[:, 0]

    def _check(self, maps: Tensor) -> None:
        if maps.ndim != 4 or min(maps.shape[2:]) < 1:
            raise DecoderError(f"The attention maps have shape {tuple(maps.shape)}. Give (phrases, channels, h, w).")
        if maps.shape[1] != self.config.channels:
            raise DecoderError(
                f"The attention maps have {maps.shape[1]} channels, and this U-Net was built for "
                f"{self.config.channels} (layers x heads). Request the layers and heads it was trained on, or "
                "build one for this backbone."
            )


class ConvNormReLU(nn.Sequential):
    """A convolution without bias, one normalisation group over all channels, and a ReLU; the size stays."""

    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.GroupNorm(1, after)
        self.relu = nn.ReLU()


class ConvBlock(nn.Sequential):
    """Two 3 x 3 convolutions, `(B, before, h, w)` to `(B, after, h, w)`."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(ConvNormReLU(before, after, 3), ConvNormReLU(after, after, 3))


class UpBlock(nn.Module):
    """Twice the size, half the channels, joined with the encoder's features of that size."""

    def __init__(self, coarse: int, fine: int) -> None:
        super().__init__()
        self.narrow = ConvNormReLU(coarse, fine, 1)
        self.block = ConvBlock(2 * fine, fine)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Join features (B, coarse, h, w) and a skip (B, fine, 2h, 2w) to (B, fine, 2h, 2w)."""
        larger = _enlarged(features.float(), 2).to(features.dtype)
        joined: Tensor = self.block(torch.cat([skip, self.narrow(larger)], dim=1))
        return joined


def normalise(maps: Tensor) -> Tensor:
    """Divide every map by its sum.

    Args:
        maps: Attention (B, C, h, w), not negative, of any float type.

    Returns:
        float32 (B, C, h, w), every map with sum 1; a map of zeros stays zero.
    """
    maps = maps.float()
    return maps / maps.sum(dim=(2, 3), keepdim=True).clamp(min=_SMALLEST_SUM)


def _enlarged(features: Tensor, scale: float) -> Tensor:
    """Enlarge bilinearly, the size rounded down."""
    if scale == 1:
        return features
    # with size= in place of scale_factor=, torch would stretch the samples where the size was rounded
    return functional.interpolate(features, scale_factor=scale, mode="bilinear", align_corners=False)


def _padded(features: Tensor, multiple: int) -> Tensor:
    """Add zeros at the bottom and right up to a multiple."""
    h, w = features.shape[2:]
    return functional.pad(features, (0, -w % multiple, 0, -h % multiple))


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
