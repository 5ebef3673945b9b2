"""Tiny random models of the real Gemma classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from typing import Any

import torch
from transformers import (
    Gemma3Config,
    Gemma3ImageProcessor,
    Gemma3Processor,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedImageProcessor,
    Gemma4UnifiedProcessor,
    Gemma4UnifiedVideoProcessor,
    Gemma4VideoProcessor,
    PaliGemmaConfig,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessor,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_gemma.adapter import Gemma3Adapter, Gemma4Adapter, PaliGemmaAdapter

SPECIAL_TOKENS = ("<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>")
GEMMA3_TOKENS = (*SPECIAL_TOKENS, "<start_of_image>", "<end_of_image>", "<image_soft_token>")
LINE_BREAKS = ("\n\n", "\n\n\n", "\n\n\n\n")
"""Several line breaks are one token in Gemma's vocabulary."""

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<start_of_image>' }}{% else %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}{{ '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
"""The published template of Gemma 3, without its handling of system messages."""

GEMMA4_TOKENS = (
    *SPECIAL_TOKENS[:4],
    *("<|turn>", "<turn|>", "<|image>", "<image|>", "<|image|>"),
    *("<|audio>", "<audio|>", "<|audio|>", "<|video|>"),
)
GEMMA4_NAMES = {
    "image": "<|image|>",
    "boi": "<|image>",
    "eoi": "<image|>",
    "audio": "<|audio|>",
    "boa": "<|audio>",
    "eoa": "<audio|>",
}
"""Control tokens by the names under which the processor looks for them; it refuses images without those of audio."""

GEMMA4_TEMPLATE = (
    CHAT_TEMPLATE.replace("<start_of_turn>", "<|turn>")
    .replace("<end_of_turn>", "<turn|>")
    .replace("<start_of_image>", "\n\n<|image|>\n\n")
)
"""The published template of Gemma 4, without system messages, tools and thinking."""

SIDE, PATCH, CELLS, WINDOW = 64, 8, 4, 24
GEMMA4_IMAGES = {"patch_size": 4, "max_soft_tokens": 70}
TOWER: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "image_size": SIDE,
    "patch_size": PATCH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "vision_use_head": False,
}


def gemma3(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Gemma3Adapter:
    """Build Gemma 3: 3 layers of 4 heads, two of which see 24 tokens only; 4 x 4 cells of 16 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
    """
    tokenizer = _tokenizer(GEMMA3_TOKENS, image="<image_soft_token>", boi="<start_of_image>", eoi="<end_of_image>")
    square = {"height": SIDE, "width": SIDE}
    processor = Gemma3Processor(
        Gemma3ImageProcessor(size=square), tokenizer, chat_template=CHAT_TEMPLATE, image_seq_length=CELLS**2
    )
    ids = token_ids(tokenizer)
    config = Gemma3Config(
        text_config={
            **TINY_TEXT,
            **_text_ids(ids),
            "vocab_size": len(tokenizer),
            "head_dim": 16,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
        vision_config=TOWER,
        mm_tokens_per_image=CELLS**2,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
    )
    return Gemma3Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Gemma 3"
    )


def gemma4(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa", large: bool = False) -> Gemma4Adapter:
    """Build Gemma 4: 4 layers of 4 heads; up to 70 cells of 12 pixels.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        large: Whether image tokens see each other both ways and keys are values, as in the large checkpoints. Else, as
            in the small ones, the last two layers use the keys and values of earlier ones.
    """
    tokenizer = _tokenizer(GEMMA4_TOKENS, **GEMMA4_NAMES)
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**GEMMA4_IMAGES),
        tokenizer,
        Gemma4VideoProcessor(),
        chat_template=GEMMA4_TEMPLATE,
    )
    variant = (
        {"use_bidirectional_attention": "vision", "attention_k_eq_v": True, "hidden_size_per_layer_input": 0}
        if large
        else {"num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    )
    config = Gemma4Config(
        text_config=_gemma4_text(tokenizer) | variant,
        vision_config={
            "patch_size": GEMMA4_IMAGES["patch_size"],
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "position_embedding_size": 256,
            "initializer_range": 2.0,  # what a layer adds is normalised: only strong patches outweigh their context
        },
        **_gemma4_ids(tokenizer),
    )
    return Gemma4Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random Gemma 4"
    )


def gemma4_unified(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Gemma4Adapter:
    """Build the unified Gemma 4, which has no vision tower: as `gemma4`, and image tokens see each other both ways.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model.
    """
    tokenizer = _tokenizer(GEMMA4_TOKENS, **GEMMA4_NAMES)
    processor = Gemma4UnifiedProcessor(
        Gemma4UnifiedAudioFeatureExtractor(),
        Gemma4UnifiedImageProcessor(**GEMMA4_IMAGES),
        tokenizer,
        Gemma4UnifiedVideoProcessor(),
        chat_template=GEMMA4_TEMPLATE,
    )
    config = Gemma4UnifiedConfig(
        text_config=_gemma4_text(tokenizer) | {"attention_k_eq_v": True},
        vision_config={
            "patch_size": GEMMA4_IMAGES["patch_size"],
            "mm_embed_dim": 32,
            "mm_posemb_size": 70,
            "output_proj_dims": 32,
            "initializer_range": 0.2,
        },
        **_gemma4_ids(tokenizer),
    )
    return Gemma4Adapter(
        random_model(config, dtype=dtype, attention=attention), processor, checkpoint="tiny random unified Gemma 4"
    )


def paligemma(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa", first: bool = False) -> PaliGemmaAdapter:
    """Build PaliGemma 2: 3 layers of 4 heads with capped scores, the first and last of which see 24 tokens only.

    Args:
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower; Gemma 2 runs with the eager one only.
        first: Whether to build PaliGemma 1, whose language model caps nothing and sees all tokens.
    """
    tokenizer = _tokenizer((*SPECIAL_TOKENS[:4], "<image>"), image="<image>")
    images: Any = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    images.image_seq_length = (SIDE // PATCH) ** 2  # as in the checkpoints' files; no argument
    variant = (
        {"model_type": "gemma"}
        if first
        else {
            "model_type": "gemma2",
            "sliding_window": WINDOW,
            "attn_logit_softcapping": 2.0,
            "query_pre_attn_scalar": 16,
        }
    )
    processor = PaliGemmaProcessor(images, tokenizer)
    ids = token_ids(tokenizer)
    config = PaliGemmaConfig(
        text_config={**TINY_TEXT, **_text_ids(ids), "vocab_size": len(tokenizer), "head_dim": 16, **variant},
        vision_config=TOWER,
        projection_dim=TINY_TEXT["hidden_size"],
        image_token_index=ids["<image>"],
    )
    return PaliGemmaAdapter(
        random_model(config, dtype=dtype, attention=attention if first else "eager"),
        processor,
        checkpoint="tiny random PaliGemma",
    )


def _gemma4_text(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The language model of both: layers that see 24 tokens only take turns with layers that see all."""
    return {
        **TINY_TEXT,
        **_text_ids(token_ids(tokenizer)),
        "vocab_size": len(tokenizer),
        "num_hidden_layers": 4,
        "head_dim": 16,
        "global_head_dim": 32,
        "sliding_window": WINDOW,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    }


def _gemma4_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    """Ids of the control tokens, by the names that the config gives them."""
    ids = token_ids(tokenizer)
    named = {f"{name}_token_id": ids[token] for name, token in GEMMA4_NAMES.items() if name != "eoa"}
    return {**named, "eoa_token_index": ids[GEMMA4_NAMES["eoa"]], "video_token_id": ids["<|video|>"]}


def _tokenizer(special_tokens: tuple[str, ...], **names: str) -> PreTrainedTokenizerFast:
    """A tokenizer with Gemma's control tokens, some of them also under the names by which the processor finds them."""
    named = {f"{name}_token": token for name, token in names.items()}
    tokenizer = byte_tokenizer(
        special_tokens, end="<eos>", padding="<pad>", bos_token="<bos>", unk_token="<unk>", extra_special_tokens=named
    )
    tokenizer.add_tokens(list(LINE_BREAKS))
    return tokenizer


def _text_ids(ids: dict[str, int]) -> dict[str, int]:
    return {"pad_token_id": ids["<pad>"], "bos_token_id": ids["<bos>"], "eos_token_id": ids["<eos>"]}
