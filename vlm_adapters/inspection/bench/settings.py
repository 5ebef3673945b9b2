"""What a bench measures, and how often."""

from __future__ import annotations

from dataclasses import dataclass, field

PARTS = ("rows", "tower", "layers", "sentences", "cache", "ground", "bound")
"""The parts for a model with a vision tower."""


@dataclass(frozen=True)
class LanguageModelSizes:
    """Sizes of a language model with random weights, and of the request.

    Attributes:
        layers: Number of layers of the language model.
        heads: Number of query heads; a seventh of them are key heads, as in Qwen2.5-VL-7B.
        head_size: Width of a head.
        length: Number of tokens in the sequence; half of them count as image tokens.
        rows: Number of attention rows to record.
    """

    layers: int = 4
    heads: int = 28
    head_size: int = 64
    length: int = 2048
    rows: int = 16


@dataclass(frozen=True)
class BenchSettings:
    """What to measure; equal settings load equal models.

    Attributes:
        model: Embedded model, folder of a checkpoint, or published checkpoint, which gets random weights; None for a
            language model alone.
        device: Device as torch names it.
        dtype: Precision of the weights as torch names it.
        parts: Parts to measure, in this order, of a model with a vision tower.
        image_tokens: Tokens of an image, about; the first number is for all parts, the others for `rows` and `bound`.
        sentences: Number of sentences on one image.
        samples: Number of samples of a cache.
        phrases: Number of phrases to ground.
        image: `(H, W)` in pixels of the image to ground; None for one of the first number of tokens.
        repeats: Timed runs of each variant, taken in turn.
        seconds: A comparison ends early after this time, when it has at least three turns.
        eager: Whether to measure `output_attentions` as well, which needs `layers x heads x length^2` numbers.
        sizes: Sizes of the language model, where there is no other model.
    """

    model: str | None = None
    device: str = "cpu"
    dtype: str = "float32"
    parts: tuple[str, ...] = PARTS
    image_tokens: tuple[int, ...] = (1000, 2000)
    sentences: int = 16
    samples: int = 16
    phrases: int = 4
    image: tuple[int, int] | None = None
    repeats: int = 7
    seconds: float = 40
    eager: bool = True
    sizes: LanguageModelSizes = field(default_factory=LanguageModelSizes)
