"""Tiny random Qwen-VL models of the real classes, for the conformance suite: no download, a second to build."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import (
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerConfig,
    Qwen2VLConfig,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3_5Config,
    Qwen3_5MoeConfig,
    Qwen3OmniMoeProcessor,
    Qwen3OmniMoeThinkerConfig,
    Qwen3VLConfig,
    Qwen3VLMoeConfig,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    WhisperFeatureExtractor,
)

from vlm_adapters.testing.tiny import TINY_TEXT, byte_tokenizer, random_model, token_ids
from vlm_adapters_qwen.adapter import Qwen2_5OmniAdapter, Qwen3OmniAdapter, QwenAdapter

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
OMNI_TOKENS = {
    "qwen2_5_omni_thinker": {
        "image_token": "<|IMAGE|>",
        "audio_token": "<|AUDIO|>",
        "video_token": "<|VIDEO|>",
        "vision_bos_token": "<|vision_bos|>",
        "vision_eos_token": "<|vision_eos|>",
        "audio_bos_token": "<|audio_bos|>",
        "audio_eos_token": "<|audio_eos|>",
    },
    "qwen3_omni_moe_thinker": {
        "image_token": "<|image_pad|>",
        "audio_token": "<|audio_pad|>",
        "video_token": "<|video_pad|>",
        "vision_bos_token": "<|vision_start|>",
        "vision_eos_token": "<|vision_end|>",
        "audio_bos_token": "<|audio_start|>",
        "audio_eos_token": "<|audio_end|>",
    },
}
"""Control tokens of the Omni models beside those of every chat, by their name in the tokenizer."""

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<|vision_start|><|image_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'video' %}{{ '<|vision_start|><|video_pad|><|vision_end|>' }}"
    "{% elif part['type'] == 'text' %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""The published template without tools and video; it changes no text."""

MIN_CELLS, MAX_CELLS = 4, 64
"""Limits of the size of the tiny models' images, in cells."""

_TOWER: dict[str, Any] = {"depth": 2, "num_heads": 2, "initializer_range": 0.2}
_TOWER_2_5 = {
    **_TOWER,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "fullatt_block_indexes": [1],
    "window_size": 112,
}
_TOWER_3 = {
    **_TOWER,
    "hidden_size": 32,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
}
_SHALLOW_TOWER_3 = {**_TOWER_3, "depth": 1}
"""Before linear attention, which mixes more, so that a token still answers to its cell most."""
_AUDIO = {
    "num_mel_bins": 16,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "d_model": 32,
    "output_dim": 64,
}
_PLANE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_INTERLEAVED = {**_PLANE, "mrope_interleaved": True}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LINEAR = {
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
}
_HYBRID = {
    **_LINEAR,
    "num_hidden_layers": 8,
    "rope_parameters": {**_INTERLEAVED, "partial_rotary_factor": 1.0},
    "head_dim": 16,
}


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, and the family's control tokens."""
    return byte_tokenizer(SPECIAL_TOKENS, end="<|im_end|>", padding="<|endoftext|>")


def omni_tokenizer(model_type: str) -> PreTrainedTokenizerFast:
    """One token per byte, and the control tokens of an Omni model's thinker."""
    names = OMNI_TOKENS[model_type]
    chat = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    # The processor asks the tokenizer for its control tokens by name.
    return byte_tokenizer(
        (*chat, *names.values()), end="<|im_end|>", padding="<|endoftext|>", extra_special_tokens=dict(names)
    )


def build_processor(
    processor_class: type, tokenizer: PreTrainedTokenizerBase, videos: Mapping[str, Any] | None = None, **images: Any
) -> Any:
    """Build a processor of the family.

    Args:
        processor_class: `Qwen2VLProcessor`, `Qwen2_5_VLProcessor` or `Qwen3VLProcessor`.
        tokenizer: A tokenizer with the family's control tokens.
        videos: Arguments of the video processor; None takes its defaults.
        images: Arguments of `Qwen2VLImageProcessor`.
    """
    video_processor = Qwen3VLVideoProcessor if processor_class is Qwen3VLProcessor else Qwen2VLVideoProcessor
    return processor_class(
        image_processor=Qwen2VLImageProcessor(**images),
        tokenizer=tokenizer,
        video_processor=video_processor(**videos or {}),
        chat_template=CHAT_TEMPLATE,
    )


def build_omni_processor(
    model_type: str, processor_class: type, tokenizer: PreTrainedTokenizerBase, **images: Any
) -> Any:
    """Build a processor of an Omni model.

    Args:
        model_type: That of the thinker.
        processor_class: `Qwen2_5OmniProcessor` or `Qwen3OmniMoeProcessor`.
        tokenizer: A tokenizer with the model's control tokens, as `omni_tokenizer` gives it.
        images: Arguments of `Qwen2VLImageProcessor` and `Qwen2VLVideoProcessor`.
    """
    names = OMNI_TOKENS[model_type]
    template = CHAT_TEMPLATE
    for name, token in (("image", "image_pad"), ("video", "video_pad"), ("vision_bos", "vision_start")):
        template = template.replace(f"<|{token}|>", names[f"{name}_token"])
    return processor_class(
        image_processor=Qwen2VLImageProcessor(**images),
        video_processor=Qwen2VLVideoProcessor(**images),
        feature_extractor=WhisperFeatureExtractor(feature_size=16),
        tokenizer=tokenizer,
        chat_template=template.replace("<|vision_end|>", names["vision_eos_token"]),
    )


def _text(tokenizer: PreTrainedTokenizerBase, text: dict[str, Any]) -> dict[str, Any]:
    """The config of a tiny language model."""
    ids = token_ids(tokenizer)
    end, padding = ids["<|im_end|>"], ids["<|endoftext|>"]
    control = {"bos_token_id": None, "eos_token_id": end, "pad_token_id": padding}
    return {**TINY_TEXT, "vocab_size": len(tokenizer), **control, **text}


def _images(patch: int) -> dict[str, Any]:
    """Arguments of the image processor of a tiny model."""
    cell = (2 * patch) ** 2
    # Given as min_pixels and max_pixels, they become the defaults of every later processor in transformers 5.17.
    limits = {"shortest_edge": MIN_CELLS * cell, "longest_edge": MAX_CELLS * cell}
    return {"patch_size": patch, "merge_size": 2, "size": limits}


def _adapter(
    config_class: Any,
    processor_class: type,
    text: dict[str, Any],
    vision: dict[str, Any],
    options: dict[str, Any],
) -> QwenAdapter:
    tokenizer = byte_level_tokenizer()
    ids = token_ids(tokenizer)
    config = config_class(
        text_config=_text(tokenizer, text),
        vision_config=vision,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
    )
    images = _images(config.vision_config.patch_size)
    processor = build_processor(processor_class, tokenizer, videos=images, **images)
    return QwenAdapter(random_model(config, **options), processor, checkpoint=f"tiny random {config_class.model_type}")


def _thinker(
    config_class: Any,
    processor_class: type,
    text: dict[str, Any],
    vision: dict[str, Any],
    audio: dict[str, Any],
    options: dict[str, Any],
) -> QwenAdapter:
    name = config_class.model_type
    tokenizer = omni_tokenizer(name)
    ids = {role: token_ids(tokenizer)[token] for role, token in OMNI_TOKENS[name].items()}
    index = "token_index" if "image_token_id" in config_class.attribute_map else "token_id"
    config = config_class(
        text_config=_text(tokenizer, text),
        vision_config=vision,
        audio_config=audio,
        **{f"{kind}_{index}": ids[f"{kind}_token"] for kind in ("image", "video", "audio")},
        vision_start_token_id=ids["vision_bos_token"],
        audio_start_token_id=ids["audio_bos_token"],
    )
    images = _images(config.vision_config.patch_size)
    processor = build_omni_processor(name, processor_class, tokenizer, **images)
    adapter_class = Qwen2_5OmniAdapter if name == "qwen2_5_omni_thinker" else Qwen3OmniAdapter
    return adapter_class(random_model(config, **options), processor, checkpoint=f"tiny random {name}")


def qwen2_vl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen2-VL: 3 layers of 4 heads in groups that share keys, cells of 28 pixels."""
    options = {"dtype": dtype, "attention": attention}
    vision = {**_TOWER, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
    return _adapter(Qwen2VLConfig, Qwen2VLProcessor, {"rope_parameters": _PLANE}, vision, options)


def qwen2_5_vl(
    *, seed: int = 0, dtype: torch.dtype = torch.float32, attention: str = "sdpa", key_value_heads: int = 2
) -> QwenAdapter:
    """Build Qwen2.5-VL: 3 layers of 4 heads in groups that share keys, cells of 28 pixels.

    Args:
        seed: Seed of the random weights.
        dtype: Dtype of the weights.
        attention: Kernel of the language model and the vision tower.
        key_value_heads: Number of key heads; fewer than 4 means grouped queries.
    """
    text = {"rope_parameters": _PLANE, "num_key_value_heads": key_value_heads}
    options = {"seed": seed, "dtype": dtype, "attention": attention}
    return _adapter(Qwen2_5_VLConfig, Qwen2_5_VLProcessor, text, _TOWER_2_5, options)


def qwen3_vl(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3-VL: 3 layers of 4 heads, cells of 32 pixels, features of one early vision layer added again."""
    text = {"rope_parameters": _INTERLEAVED, "head_dim": 16}
    options = {"dtype": dtype, "attention": attention}
    vision = {**_TOWER_3, "deepstack_visual_indexes": [0]}
    return _adapter(Qwen3VLConfig, Qwen3VLProcessor, text, vision, options)


def qwen3_vl_moe(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3-VL with 4 experts, of which 2 are used per token."""
    text = {"rope_parameters": _INTERLEAVED, "head_dim": 16, **_EXPERTS}
    options = {"dtype": dtype, "attention": attention}
    vision = {**_TOWER_3, "deepstack_visual_indexes": [0]}
    return _adapter(Qwen3VLMoeConfig, Qwen3VLProcessor, text, vision, options)


def qwen3_5(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3.5: 8 layers of which every 4th has attention."""
    options = {"dtype": dtype, "attention": attention}
    return _adapter(Qwen3_5Config, Qwen3VLProcessor, _HYBRID, _SHALLOW_TOWER_3, options)


def qwen3_5_moe(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build Qwen3.5 with 4 experts and a shared one, of which 2 are used per token."""
    text = {**_HYBRID, **_EXPERTS, "shared_expert_intermediate_size": 32, "initializer_range": 0.1}
    options = {"dtype": dtype, "attention": attention}
    return _adapter(Qwen3_5MoeConfig, Qwen3VLProcessor, text, _SHALLOW_TOWER_3, options)


def qwen2_5_omni_thinker(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build the thinker of Qwen2.5-Omni: Qwen2.5-VL with an audio tower, which no image reaches."""
    options = {"dtype": dtype, "attention": attention}
    audio = {**_AUDIO, "n_window": 10, "max_source_positions": 50}
    text = {"rope_parameters": _PLANE}
    return _thinker(Qwen2_5OmniThinkerConfig, Qwen2_5OmniProcessor, text, _TOWER_2_5, audio, options)


def qwen3_omni_moe_thinker(*, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> QwenAdapter:
    """Build the thinker of Qwen3-Omni: Qwen3-VL with 4 experts, and an audio tower, which no image reaches."""
    options = {"dtype": dtype, "attention": attention}
    audio = {**_AUDIO, "downsample_hidden_size": 8}
    text = {"rope_parameters": _INTERLEAVED, "head_dim": 16, **_EXPERTS}
    vision = {**_TOWER_3, "deepstack_visual_indexes": [0]}
    return _thinker(Qwen3OmniMoeThinkerConfig, Qwen3OmniMoeProcessor, text, vision, audio, options)
