"""The protocol that every backbone speaks, and the data that cross it.

Words: `B` prompts of a batch, `S` positions of a sequence, `L` layers, `n` heads, `P` phrases, `D` width of the
language model; `h, w` cells of a grid, `H, W` pixels of an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypedDict, runtime_checkable

from torch import nn
from typing_extensions import Unpack

from vlm_adapters.answer import Answer
from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.geometry import CoordinateFrame
from vlm_adapters.prompt import Prompt

OptionValue = str | int | float | bool | None
SharedWork = Literal["beginning", "image features", "nothing"]
"""What prompts of one `extract` call that show the same image compute once.

`"beginning"`: the image and the text before theirs. `"image features"`: the vision tower;
the language model runs over every prompt. `"nothing"`: each prompt is computed by itself.
"""


@dataclass(frozen=True)
class BackboneInfo:
    """What a consumer must know of a backbone to size itself.

    Attributes:
        model_type: Hugging Face `model_type`; the adapter's name.
        checkpoint: Hub name or directory that it was loaded from.
        revision: Commit of the checkpoint, where known.
        num_layers: Layers of the language model.
        attention_layers: Indices of the layers that have attention (hybrid models lack it in some).
        num_heads: Query heads of every such layer.
        hidden_size: Width `D` of the language model.
        cell: Pixels `(height, width)` of the resized image that one image token covers.
        grids: Names of the grids that an image may have, the finest last. An image has the finest, and others as its
            size and the prompt give. Empty where image tokens have no places in the image.
        options: Names and values of the adapter's own options, such as `min_pixels`.
        device: Where inputs and results live, as torch names it.
        dtype: Precision of the weights, such as `float32`; of quantised weights, the one that they compute in.
        fingerprint: Digest of the weights; None where they cannot be seen.
        shared: What prompts of one `extract` call that show the same image compute once.

    Examples:
        >>> from vlm_adapters import load_adapter
        >>> info = load_adapter("tiny-llava").info
        >>> info.model_type, info.num_layers, info.num_heads, info.hidden_size, info.cell
        ('llava', 6, 8, 128, (12, 12))
    """

    model_type: str
    checkpoint: str
    revision: str | None
    num_layers: int
    attention_layers: tuple[int, ...]
    num_heads: int
    hidden_size: int
    cell: tuple[int, int]
    grids: tuple[str, ...] = ("fine",)
    options: tuple[tuple[str, OptionValue], ...] = ()
    device: str = "cpu"
    dtype: str = "float32"
    fingerprint: str | None = None
    shared: SharedWork = "nothing"

    @property
    def channels(self) -> int:
        """Attention maps of one phrase: layers x heads x grids. Channel = layer * n + head."""
        return len(self.attention_layers) * self.num_heads * len(self.grids)


@runtime_checkable
class BackboneAdapter(Protocol):
    """A frozen vision-language model that tells where its words look.

    Examples:
        >>> from vlm_adapters import BackboneAdapter, load_adapter
        >>> isinstance(load_adapter("tiny-llava"), BackboneAdapter)
        True
    """

    name: str

    @property
    def info(self) -> BackboneInfo:
        """What a consumer must know of the backbone."""
        ...

    def preprocess(self, prompts: Sequence[Prompt]) -> BackboneInputs:
        """Turn prompts into what the model takes. Uses no network.

        Raises:
            PromptError: A prompt cannot be encoded.
        """
        ...

    def locate_image_tokens(self, inputs: BackboneInputs) -> Sequence[Sequence[ImageGrid]]:
        """Find the grids of every prompt's images: one list per prompt, an image's in the order of `info.grids`."""
        ...

    def extract(self, inputs: BackboneInputs, request: GridRequest) -> Sequence[Sequence[Grids]]:
        """Run the model once and return, per prompt, one `Grids` per `ImageGrid`.

        Raises:
            RequestError: The request names layers or heads that do not exist.
            CaptureError: Rows cannot be computed exactly.
        """
        ...


@runtime_checkable
class HasModel(Protocol):
    """An adapter over a torch module that reports and checks may look into."""

    @property
    def model(self) -> nn.Module:
        """The frozen model."""
        ...


class GenerationOptions(TypedDict, total=False):
    """How the tokens of an answer are chosen, in the words of transformers; without any, each is the likeliest.

    Attributes:
        min_new_tokens: Fewest tokens of an answer.
        do_sample: Whether tokens are drawn; the generator is torch's, so `torch.manual_seed` repeats an answer.
        temperature: By what logits are divided before a token is drawn; the checkpoint's own where it is not given, as
            are `top_k`, `top_p` and `min_p`.
        top_k: From how many of the likeliest tokens one is drawn.
        top_p: From what share of probability one is drawn.
        min_p: Least probability of a token that is drawn, as a share of the likeliest one's.
        num_beams: Number of beams of beam search.
        length_penalty: Exponent of the length by which scores of beams are divided.
        early_stopping: Whether beam search stops when it has as many answers as beams.
        repetition_penalty: Penalty of tokens that were there before; 1 for none.
        no_repeat_ngram_size: Length of the token sequences that may occur once only; 0 for any.
        suppress_tokens: Ids of tokens that are never written.
        stop_strings: Texts after which an answer ends; it keeps them.
        stopping_criteria: A `transformers.StoppingCriteriaList`.
        streamer: A streamer of transformers, such as `TextStreamer` or `TextIteratorStreamer`, which gets tokens as
            they are written. Not with beams.
    """

    min_new_tokens: int
    do_sample: bool
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    num_beams: int
    length_penalty: float
    early_stopping: bool
    repetition_penalty: float
    no_repeat_ngram_size: int
    suppress_tokens: Sequence[int]
    stop_strings: str | Sequence[str]
    stopping_criteria: Any
    streamer: Any


@runtime_checkable
class SupportsGeneration(Protocol):
    """An adapter whose model can answer."""

    def generate(self, prompt: Prompt, max_new_tokens: int = 256, **options: Unpack[GenerationOptions]) -> Answer:
        """Let the model answer a prompt that ends with the user's turn, each token the likeliest.

        Args:
            prompt: The chat; its phrases do not matter.
            max_new_tokens: Where the answer is cut off.
            options: Other ways to choose tokens.

        Returns:
            The words and the tokens of the answer. `prompt.answered(answer, phrases)` is the sequence that the model
            read and wrote.

        Raises:
            PromptError: The prompt cannot be encoded, or does not end with the user's turn.
            OptionError: There is no such option, or it cannot be used beside another.
            BackboneError: The model raised an error, or cannot use the value of an option.
        """
        ...


@runtime_checkable
class SupportsPointing(SupportsGeneration, Protocol):
    """An adapter whose model, asked in words, answers with boxes as JSON."""

    def coordinate_frame(self, size: tuple[int, int]) -> CoordinateFrame | None:
        """The frame of its boxes for an image `(H, W)`; None where this checkpoint is not known to point."""
        ...
