"""Tiny random models of families without a grid, for `measure_discovery.py`: what discovery must not find."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from transformers import (
    Idefics2Config,
    Idefics2ImageProcessor,
    Idefics2Processor,
    MllamaConfig,
    MllamaImageProcessor,
    MllamaProcessor,
    PreTrainedModel,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids

_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}


def refused_models(names: Sequence[str]) -> Iterator[tuple[str, PreTrainedModel, Any]]:
    """Name, model and processor of each."""
    for name, build in (("idefics2", idefics2), ("mllama", mllama)):
        if not names or name in names:
            yield name, *build()


def idefics2() -> tuple[PreTrainedModel, Any]:
    """A resampler: 8 learned queries read every image."""
    special = ("<unk>", "<s>", "</s>", "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<pad>")
    tokenizer = byte_tokenizer(special, end="</s>", padding="<pad>")
    images = Idefics2ImageProcessor(do_image_splitting=False, size={"longest_edge": 64, "shortest_edge": 32})
    processor = Idefics2Processor(images, tokenizer, image_seq_len=8)
    config = Idefics2Config(
        text_config={"model_type": "mistral", "vocab_size": len(tokenizer), "pad_token_id": 0, **TINY_TEXT},
        vision_config={**_TOWER, "image_size": 64, "patch_size": 8, "initializer_range": 0.2},
        perceiver_config={
            "hidden_size": 64,
            "resampler_n_latents": 8,
            "resampler_depth": 1,
            "resampler_n_heads": 4,
            "resampler_head_dim": 16,
            "num_key_value_heads": 2,
        },
        image_token_id=token_ids(tokenizer)["<image>"],
    )
    return random_model(config), processor


def mllama() -> tuple[PreTrainedModel, Any]:
    """Cross-attention: the image is in no sequence."""
    special = ("<unk>", "<s>", "</s>", "<|image|>", "<pad>", "<|begin_of_text|>")
    tokenizer = byte_tokenizer(special, end="</s>", padding="<pad>")
    tokenizer.add_special_tokens({"bos_token": special[-1]})
    tokenizer.image_token, tokenizer.image_token_id = "<|image|>", token_ids(tokenizer)["<|image|>"]
    images = MllamaImageProcessor(size={"height": 64, "width": 64}, max_image_tiles=4)
    processor = MllamaProcessor(images, tokenizer)
    config = MllamaConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "cross_attention_layers": [1],
            "pad_token_id": 0,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            **TINY_TEXT,
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "intermediate_layers_indices": [0],
            "vision_output_dim": 64,
            "max_num_tiles": 4,
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        image_token_index=token_ids(tokenizer)["<|image|>"],
    )
    return random_model(config), processor
