"""A tiny random VideoLLaMA 3 of the real classes, and where its cells must be."""

from math import ceil, floor, prod, sqrt

import torch
from transformers import (
    PreTrainedTokenizerFast,
    VideoLlama3Config,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
)
from vlm_adapters.testing import AdapterCase, ExpectedGrid
from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids

from vlm_adapters_video_llama_3.adapter import VideoLlama3Adapter

PATCH, CELL, FEWEST, MOST = 8, 16, 4, 80
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|video_pad|>")
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role + '\n' }}{% for part in message.content %}"
    "{{ '<|image_pad|>' if part.type == 'image' else part.text }}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tiny_processor(tokenizer: PreTrainedTokenizerFast) -> VideoLlama3Processor:
    """Build the processor: cells of 2 x 2 patches, 4 to 80 of them."""
    size = {"shortest_edge": FEWEST * CELL**2, "longest_edge": MOST * CELL**2}
    images = VideoLlama3ImageProcessor(size=size, patch_size=PATCH, merge_size=CELL // PATCH)
    return VideoLlama3Processor(images, tokenizer, VideoLlama3VideoProcessor(), chat_template=TEMPLATE)


def load(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> VideoLlama3Adapter:
    """Build the adapter over random weights."""
    tokenizer = byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>")
    tower = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = VideoLlama3Config(
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TINY_TEXT},
        vision_config={"patch_size": PATCH, "initializer_range": 0.2, **tower},
        image_token_id=token_ids(tokenizer)["<|image_pad|>"],
    )
    model = random_model(config, dtype=dtype, attention=attention)
    return VideoLlama3Adapter(model, tiny_processor(tokenizer), checkpoint="tiny random VideoLLaMA 3")


def grids(size: tuple[int, int]) -> list[ExpectedGrid]:
    """The rule: sides rounded to full cells, and scaled until there are neither too few cells nor too many."""
    shape = [round(side / CELL) for side in size]
    if prod(shape) > MOST:
        shape = [max(1, floor(side * sqrt(MOST / prod(size)))) for side in size]
    elif prod(shape) < FEWEST:
        shape = [ceil(side * sqrt(FEWEST / prod(size))) for side in size]
    return [ExpectedGrid((shape[0], shape[1]), (0, 0, size[1], size[0]))]


CASE = AdapterCase("video_llama_3", load=load, expected_grids=grids)
