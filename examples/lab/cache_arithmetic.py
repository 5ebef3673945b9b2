"""What training a decoder over a model of 7 billion parameters takes, with and without a cache: arithmetic.

`measure_cache.py` prints it beside what it measured. Nothing here is a measurement: it follows from the sizes of the
models, and its seconds from the speed at which a smaller model was measured.
"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm_adapters.decoder.unet import UNet, UNetConfig

PARAMETERS, LAYERS, HEADS, WIDTH = 7e9, 28, 28, 3584
"""Of Qwen2.5-VL-7B's language model; the vision tower comes on top of it and is left out."""


def arithmetic(measured: dict[str, float]) -> dict[str, float]:
    """What one sample takes with 7 billion parameters, the tokens of its text left out on both sides.

    A cache holds 2 bytes for every phrase, layer, head and image token. It was read just after it was written, out of
    memory; of a disk's speed the measurement knows nothing.

    Args:
        measured: As `measure_cache.compare` gives it, of a smaller model.
    """
    tokens, samples = measured["image tokens, mean"], measured["samples"]
    channels, width, side = LAYERS * HEADS, int(measured["decoder base width"]), round(tokens**0.5)
    phrases = measured["phrases"] / samples
    small = forward_operations(measured["parameters"], measured["layers"], measured["width"], tokens)
    large = forward_operations(PARAMETERS, LAYERS, WIDTH, tokens)
    of_small = phrases * unet_operations(UNetConfig(int(measured["decoder channels"]), width), side)
    of_large = phrases * unet_operations(UNetConfig(channels, width), side)
    size = phrases * channels * tokens * 2
    forward = large / small * measured["seconds to build the cache"] / samples
    learning = of_large / of_small * measured["seconds of an epoch, from the cache"] / samples
    return {
        "image tokens": tokens,
        "phrases per sample": phrases,
        "TFLOP, forward pass of the backbone": large / 1e12,
        "TFLOP, U-Net forward and backward": of_large / 1e12,
        "operations, from the cache / in the loop": of_large / (of_large + large),
        "MB read from the cache": size / 1e6,
        "seconds, forward pass at the measured speed": forward,
        "seconds, U-Net at the measured speed": learning,
        "seconds, reading at the measured speed": size
        * measured["seconds to read all of it"]
        / measured["bytes of the cache"],
        "seconds, from the cache / in the loop": learning / (learning + forward),
    }


def forward_operations(parameters: float, layers: float, width: float, tokens: float) -> float:
    """Floating-point operations of a forward pass: two per parameter and token, and those of causal attention.

    Its two products of queries, keys and values take `2 * tokens**2 * width` each, and half of that is masked.
    """
    return 2 * parameters * tokens + 2 * layers * tokens**2 * width


def unet_operations(config: UNetConfig, side: int) -> int:
    """Floating-point operations to learn from one phrase on a grid of `side x side` cells, counted on the graph."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(config)(torch.zeros(1, config.channels, side, side)).sum().backward()
    return int(counter.get_total_flops())
