"""The parts of the embedded tiny Qwen2.5-VL: the real classes with small sizes, and a tokenizer of 512 entries."""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from vlm_adapters.data.scenes import COLOURS, DOTS, SHAPES
from vlm_adapters.prompt import DESCRIBE_QUESTION
from vlm_adapters_qwen.tiny import CHAT_TEMPLATE, SPECIAL_TOKENS

VOCABULARY = 512
PATCH, MERGE = 8, 2
CELL_PIXELS = (PATCH * MERGE) ** 2
FEWEST_CELLS, MOST_CELLS = 180, 216
MODEL_CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: image-text-to-text
---
# tiny-qwen2_5_vl

A `Qwen2_5_VLForConditionalGeneration` of 0.93 million parameters that describes synthetic scenes of coloured
shapes. It exists so that `vlm-adapters` works offline: the class, the processors and the file formats are the real
ones, the sizes are not, and it knows nothing of photographs.

## How it was made
`python examples/train_tiny_qwen2_5_vl.py` makes it from random weights and `vlm_adapters.data.scenes`, nothing else.

1. **Vision stage.** The vision tower learns at every image token to name the colour, the shape and the dot of the
   object there, and which cells around belong to it. **These dense labels come from the truth masks of the scenes.**
2. **Caption stage.** All weights learn to write the captions by next-token loss; the dense loss goes on beside it.

So the features of the image tokens have been told where objects are. **No loss touches the attention of the language
model**: no mask, box or attention target says where a word should look. That its words look at what they name was not
asked for, and is what the decoder reads.

The decoder in `decoder/` was trained on this model's attention maps by `python examples/train_tiny_decoder.py`, from
truth masks.

## How good it is
`measured.json` holds what `python examples/measure_tiny.py --out measured.json` wrote: mean IoU on scenes that no
training saw, with its controls (pictures swapped, the same decoder on random weights, blank pictures, a blind guess)
and the ceiling that the grid itself sets.

## Limits
Scenes of two to four shapes, six colours, captions of one form ("a red circle with a white dot , a blue star at the top
left and a green square ."), about 180 to 216 image tokens. Anything else is outside what it has seen.
"""


def chat(processor: Qwen2_5_VLProcessor, caption: str) -> str:
    """The text of the caption case, with one image placeholder."""
    question = [{"type": "image"}, {"type": "text", "text": DESCRIBE_QUESTION}]
    answer = [{"type": "text", "text": caption}]
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return str(processor.apply_chat_template(messages, tokenize=False))


def build_processor() -> Qwen2_5_VLProcessor:
    """The stock processor classes around a tokenizer made for the words of the scenes."""
    size = {"shortest_edge": FEWEST_CELLS * CELL_PIXELS, "longest_edge": MOST_CELLS * CELL_PIXELS}
    sizes = {"patch_size": PATCH, "merge_size": MERGE, "temporal_patch_size": 2, "size": size}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**sizes),
        tokenizer=_build_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**sizes),
        chat_template=CHAT_TEMPLATE,
    )


def _build_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=SPECIAL_TOKENS[2],
        pad_token=SPECIAL_TOKENS[0],
        additional_special_tokens=[*SPECIAL_TOKENS[1:2], *SPECIAL_TOKENS[3:]],
        model_max_length=4096,
        clean_up_tokenization_spaces=False,
    )


def _corpus() -> Iterator[str]:
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
    yield from ["system\nuser\nassistant\n" + DESCRIBE_QUESTION] * 20
    yield from [
        "You are a helpful assistant. What is in the picture? Where is the small or large one? It is here, there."
    ] * 3


def build_model(processor: Qwen2_5_VLProcessor, seed: int = 0) -> Qwen2_5_VLForConditionalGeneration:
    """The stock model class with random weights."""
    token = processor.tokenizer.convert_tokens_to_ids
    end, pad = token("<|im_end|>"), token("<|endoftext|>")
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(processor.tokenizer),
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 4,
            "num_attention_heads": 8,
            "num_key_value_heads": 4,
            "max_position_embeddings": 4096,
            "initializer_range": 0.06,
            # Slow rotations could not tell the few rows and columns apart.
            "rope_parameters": {"rope_type": "default", "rope_theta": 30.0, "mrope_section": [2, 3, 3]},
            "bos_token_id": None,
            "eos_token_id": end,
            "pad_token_id": pad,
        },
        vision_config={
            "depth": 3,
            "hidden_size": 64,
            "intermediate_size": 192,
            "num_heads": 2,
            "patch_size": PATCH,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "window_size": 8 * PATCH * MERGE,
            "fullatt_block_indexes": [2],
            "out_hidden_size": 128,
            "initializer_range": 0.06,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config = GenerationConfig(eos_token_id=end, pad_token_id=pad, do_sample=False)
    return model


def save(model: Qwen2_5_VLForConditionalGeneration, processor: Qwen2_5_VLProcessor, out: Path) -> None:
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
        processor.save_pretrained(new)
        (new / "README.md").write_text(MODEL_CARD)
        for file in new.iterdir():
            file.chmod(0o644)
        if out.exists():
            out.rename(Path(folder) / "old")
        new.rename(out)
