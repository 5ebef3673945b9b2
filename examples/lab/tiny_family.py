"""What the embedded tiny checkpoints share: a tokenizer made for the scenes, a way to save, and a model card."""

from __future__ import annotations

import itertools
import json
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerFast, ProcessorMixin

from vlm_adapters.data.formats.scenes import COLOURS, DOTS, SHAPES
from vlm_adapters.prompt import DESCRIBE_QUESTION

VOCABULARY = 512
MODEL_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# {name}

A `{model}` of {millions:.2f} million parameters that describes synthetic scenes of coloured
shapes. It exists so that `vlm-adapters` works offline: the class, the processors and the file formats are the real
ones, the sizes are not, and it knows nothing of photographs.

{about}

## How it was made
{how_made}

The decoder in `decoder/` was trained on this model's attention maps by
`python examples/lab/train_tiny_decoder.py --model {name}`, from truth masks.

## How good it is
The page of results (`docs/results.md` in the repository) shows what
`python examples/lab/measure_tiny.py --model {name}` measured: mean IoU on scenes that no training saw, with its
controls (images swapped, blank images, a blind guess) and the ceiling that the grid sets.

## Limits
{limits}
"""
HOW_MADE = """\
`python examples/lab/train_tiny_backbone.py {name}` makes it from random weights and `vlm_adapters.data.formats.scenes`,
nothing else.

1. **Vision stage.** The vision tower learns at every image token to name the colour, the shape and the dot of the
   object there, and which cells around belong to it. **These dense labels come from the truth masks of the scenes.**
2. **Caption stage.** All weights learn to write the captions by next-token loss; the dense loss stays beside it.

So the features of the image tokens have learned where objects are. **No loss touches the attention of the language
model**: no mask, box or attention target says where a word should look. That its words look at what they name was not
trained for, and is what the decoder reads."""
LIMITS = """\
Scenes of two to four shapes, six colours, captions of one form ("a red circle with a white dot , a blue star at the top
left and a green square ."), {cells} image tokens. Anything else is outside what it has seen."""


class TinyFamily(ABC):
    """What training has to know of one family of models; an instance holds its processor."""

    name: ClassVar[str]
    """Of the embedded checkpoint."""
    vision_width: ClassVar[int] = 128
    """Of the features that the language model gets."""
    vision_steps: ClassVar[int] = 1200
    caption_steps: ClassVar[int] = 1800
    """Of training's two stages."""
    tower_layers: ClassVar[int]
    language_layers: ClassVar[int] = 4
    how_made: ClassVar[str] = HOW_MADE
    limits: ClassVar[str] = LIMITS
    """Parts of the model card."""
    words: ClassVar[Sequence[str]] = ()
    """Texts whose words become one token each, beside those of the scenes."""

    def __init__(self) -> None:
        self.processor = self.build_processor()

    @property
    @abstractmethod
    def cell(self) -> int:
        """Side of an image token, in pixels of the resized image."""

    @property
    @abstractmethod
    def about(self) -> str:
        """A paragraph of the model card on the sizes."""

    @property
    @abstractmethod
    def cells(self) -> str:
        """How many image tokens, in words of the model card."""

    @abstractmethod
    def build_processor(self) -> ProcessorMixin:
        """The stock processor classes around a tokenizer made for the words of the scenes."""

    @abstractmethod
    def build_model(self, seed: int = 0) -> PreTrainedModel:
        """The stock model class with random weights."""

    @abstractmethod
    def resize(self, image: Image.Image) -> Tensor:
        """The image `(3, H, W)` uint8 as the model sees it, before it is normalised."""

    @abstractmethod
    def see(self, model: PreTrainedModel, pixels: Tensor) -> Tensor:
        """Image features `(B, h * w, D)` of normalised images of one size, as the stock model has them."""

    def present(self, image: Image.Image) -> Image.Image:
        """The image as the stock processor is given it."""
        return image

    def frame(self, masks: Tensor) -> Tensor:
        """Masks `(P, H, W)` with the border that the image gets."""
        return masks

    def grid(self, pixels: Tensor) -> tuple[int, int]:
        """Rows and columns of image tokens of resized images `(..., H, W)`."""
        return pixels.shape[-2] // self.cell, pixels.shape[-1] // self.cell

    def positions(
        self, model: PreTrainedModel, image: Tensor, grid: tuple[int, int], answers: tuple[int, int]
    ) -> Tensor:
        """Positions for the rotary embedding of the text model: those of the question, then of every answer after it.

        Args:
            model: As from `build_model`.
            image: `(Q,)` whether a token of the question belongs to the image.
            grid: Rows and columns of the image's tokens.
            answers: Number `K` of answers, each of `S` tokens.

        Returns:
            `(..., 1, Q + K * S)`.
        """
        del model, grid
        K, S = answers
        later = (len(image) + torch.arange(S)).expand(K, S).flatten()
        return torch.cat([torch.arange(len(image)), later])[None]

    def normalise(self, pixels: Tensor) -> Tensor:
        """Images `(B, 3, H, W)` uint8 as the processor gives them to the model."""
        images = self.processor.image_processor
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (images.image_mean, images.image_std))
        return (pixels / 255 - mean) / std

    def chat(self, caption: str) -> str:
        """The text of the caption case, with one image placeholder."""
        question = [{"type": "image"}, {"type": "text", "text": DESCRIBE_QUESTION}]
        answer = [{"type": "text", "text": caption}]
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return str(self.processor.apply_chat_template(messages, tokenize=False))

    def chat_template(self, turns: int) -> str:
        """A conversation on an image in which `Q<0>`, `A<0>`, `Q<1>`, ... stand for questions and answers."""
        messages = []
        for turn in range(turns):
            asked = [{"type": "image"}] if turn == 0 else []
            messages.append({"role": "user", "content": [*asked, {"type": "text", "text": f"Q<{turn}>"}]})
            messages.append({"role": "assistant", "content": [{"type": "text", "text": f"A<{turn}>"}]})
        return str(self.processor.apply_chat_template(messages, tokenize=False))

    def save(self, model: PreTrainedModel, out: Path) -> None:
        """Write the checkpoint to a temporary folder, then put it in the place of `out`."""
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent) as folder:
            new = Path(folder) / out.name
            model.half().save_pretrained(new)
            model.float()
            # Half precision saves space on disk; the model is meant to run in float32.
            config = json.loads((new / "config.json").read_text())
            for part in (config, config["text_config"], config["vision_config"]):
                part["dtype"] = "float32"
            (new / "config.json").write_text(json.dumps(config, indent=2) + "\n")
            self.processor.save_pretrained(new)
            (new / "README.md").write_text(self.card(model))
            for file in new.iterdir():
                file.chmod(0o644)
            if out.exists():
                out.rename(Path(folder) / "old")
            new.rename(out)

    def card(self, model: PreTrainedModel) -> str:
        """The text of the model card."""
        return MODEL_CARD.format(
            name=self.name,
            model=type(model).__name__,
            millions=model.num_parameters() / 1e6,
            about=self.about,
            how_made=self.how_made.format(name=self.name),
            limits=self.limits.format(cells=self.cells),
        )


def to_tensor(image: Image.Image) -> Tensor:
    """The image as `(3, H, W)` uint8."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


def set_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Tell the model how its answers end."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=False
    )


def build_tokenizer(special_tokens: Sequence[str], words: Sequence[str], **names: object) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of at most `VOCABULARY` entries, with one for every word of the scenes.

    Args:
        special_tokens: Of the family; they come first.
        words: What the chat template writes besides them, then what else is to be one token a word.
        names: What `PreTrainedTokenizerFast` calls some of them, such as `eos_token`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(*words), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=4096, clean_up_tokenization_spaces=False, **names
    )


def _corpus(roles: str, *words: str) -> Iterator[str]:
    """Every word of the scenes many times, so that each becomes one token, and some English for the rest."""
    for colour, shape, dot in itertools.product(COLOURS, SHAPES, DOTS):
        yield f"a {colour} {shape} with a {dot} dot , a {colour} {shape} and a {colour} {shape} ."
    places = [
        *itertools.product(("top", "bottom"), ("left", "right")),
        ("top",),
        ("bottom",),
        ("left",),
        ("right",),
        ("center",),
    ]
    for place in places:
        yield from [f"a circle at the {' '.join(place)}"] * 20
    yield from [roles + DESCRIBE_QUESTION] * 20
    yield from words * 20
    yield from [
        "You are a helpful assistant. What is in the picture? Where is the small or large one? It is here, there."
    ] * 3
