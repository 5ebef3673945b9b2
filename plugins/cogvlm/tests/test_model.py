"""The model against independent ones: transformers' Llama, timm's blocks, and the published sizes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from timm.models.eva import EvaBlockPostNorm
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, LlamaConfig, LlamaForCausalLM

from vlm_adapters.testing.tiny import random_model
from vlm_adapters_cogvlm.config import CogVLMConfig
from vlm_adapters_cogvlm.sequence import position_ids_of, takes_vision_expert
from vlm_adapters_cogvlm.tiny import cogvlm, tiny_config
from vlm_adapters_cogvlm.vision import VisionBlock

PATCHES, TEXT = 16, 6


def sequence(text: int = TEXT, *, patches: int = PATCHES) -> tuple[Tensor, Tensor]:
    """Ids and types `(1, S)` of a begin, an image and a text."""
    image = patches + 2
    types = torch.tensor([[0] + [1] * image + [0] * text])
    words = torch.randint(3, 259, (text,), generator=torch.Generator().manual_seed(0)).tolist()
    return torch.tensor([[1] + [0] * image + words]), types


@dataclass
class Pair:
    """A CogVLM with equal experts, and the Llama that has the weights of one of them."""

    model: Any
    llama: Any

    def compare(self, embeddings: Tensor, types: Tensor, mask: Tensor | None, *, use_cache: bool) -> None:
        """Require the same logits, states and maps of both at every place that is not padding."""
        positions = position_ids_of(types, mask)
        found, expected = (
            model(
                inputs_embeds=embeddings,
                attention_mask=given,
                position_ids=positions,
                use_cache=use_cache,
                output_hidden_states=True,
                output_attentions=True,
                **types_of,
            )
            # Llama takes repeated positions for packed sequences, unless it gets a mask.
            for model, given, types_of in (
                (self.model, mask, {"token_type_ids": types}),
                (self.llama, torch.ones_like(types) if mask is None else mask, {}),
            )
        )
        kept = torch.ones_like(types).bool() if mask is None else mask.bool()
        torch.testing.assert_close(found.logits[kept], expected.logits[kept], rtol=1e-4, atol=1e-4)
        assert len(found.hidden_states) == len(expected.hidden_states) == 4
        for ours, theirs in zip(found.hidden_states, expected.hidden_states, strict=True):
            torch.testing.assert_close(ours[kept], theirs[kept], rtol=1e-4, atol=1e-4)
        for ours, theirs in zip(found.attentions, expected.attentions, strict=True):
            rows = kept[:, None, :].expand(-1, ours.shape[1], -1)
            torch.testing.assert_close(ours[rows], theirs[rows], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def pair() -> Pair:
    config = tiny_config()
    model: Any = random_model(config, attention="eager").eval()
    llama: Any = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_hidden_layers,
            num_attention_heads=config.num_attention_heads,
            rms_norm_eps=config.rms_norm_eps,
            attn_implementation="eager",
        )
    ).eval()
    weights = {
        "model.embed_tokens.weight": model.model.embed_tokens.weight,
        "model.norm.weight": model.model.norm.weight,
        "lm_head.weight": model.lm_head.weight,
    }
    for index, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for name in ("query_key_value", "dense"):
            expert = getattr(attention, f"vision_expert_{name}")
            expert.load_state_dict(getattr(attention, f"language_expert_{name}").state_dict())
        mlp.vision_mlp.load_state_dict(mlp.language_mlp.state_dict())
        prefix = f"model.layers.{index}."
        fused = attention.language_expert_query_key_value.weight.chunk(3)
        weights |= {f"{prefix}self_attn.{name}_proj.weight": part for name, part in zip("qkv", fused, strict=True)}
        weights[f"{prefix}self_attn.o_proj.weight"] = attention.language_expert_dense.weight
        weights |= {f"{prefix}mlp.{name}": weight for name, weight in mlp.language_mlp.state_dict().items()}
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = getattr(layer, name).weight
    llama.load_state_dict(weights)
    return Pair(model, llama)


@torch.no_grad()
@pytest.mark.parametrize("use_cache", [False, True])
def test_with_equal_experts_the_language_part_is_llama(pair: Pair, *, use_cache: bool) -> None:
    _, types = sequence()
    embeddings = torch.randn(1, types.shape[1], 64, generator=torch.Generator().manual_seed(0))
    pair.compare(embeddings, types, None, use_cache=use_cache)


@torch.no_grad()
@pytest.mark.parametrize("side", ["left", "right"])
def test_with_equal_experts_a_padded_batch_is_llama(pair: Pair, side: str) -> None:
    long, short = sequence()[1], sequence(2)[1]
    missing = long.shape[1] - short.shape[1]
    before, after = (missing, 0) if side == "left" else (0, missing)
    types = torch.cat([long, nn.functional.pad(short, (before, after))])
    mask = torch.cat([torch.ones_like(long), nn.functional.pad(torch.ones_like(short), (before, after))])
    embeddings = torch.randn(2, types.shape[1], 64, generator=torch.Generator().manual_seed(0))
    pair.compare(embeddings, types, mask, use_cache=False)


@torch.no_grad()
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_repeated_positions_are_not_taken_for_packed_sequences(pair: Pair, attention: str) -> None:
    """A trainer passes no mask and no cache; Llama itself then sees a wrong part of the sequence."""
    ids, types = sequence()
    model: Any = cogvlm(attention=attention).model
    plain = model(ids, token_type_ids=types, use_cache=False).logits
    for options in ({"attention_mask": torch.ones_like(ids)}, {"use_cache": True}):
        torch.testing.assert_close(plain, model(ids, token_type_ids=types, **options).logits, rtol=1e-4, atol=1e-4)
    seen = cogvlm(attention="eager").model(ids, token_type_ids=types, use_cache=False, output_attentions=True)
    count = (seen.attentions[0][0, 0] > 0).sum(dim=-1)
    assert count.tolist() == list(range(1, ids.shape[1] + 1))
    positions = position_ids_of(types)
    trapped = pair.llama(ids, position_ids=positions, use_cache=False, output_attentions=True).attentions[0][0, 0] > 0
    assert trapped.sum(dim=-1).tolist() != count.tolist()  # else the trap is gone, and the test shows nothing


@torch.no_grad()
def test_a_swap_of_experts_changes_the_tokens_that_have_the_vision_expert() -> None:
    ids, types = sequence()
    model: Any = cogvlm().model
    layer = model.model.layers[0]

    def outputs() -> Tensor:
        found: list[Tensor] = []
        hook = layer.mlp.register_forward_hook(lambda _, __, output: found.append(output))
        model(ids, token_type_ids=types, use_cache=False)
        hook.remove()
        return found[0][0]

    before = outputs()
    for parameter in layer.mlp.vision_mlp.parameters():
        parameter.add_(0.1)
    changed = (outputs() - before).abs().amax(dim=-1) > 1e-6
    assert changed.tolist() == [False] + [True] * (PATCHES + 1) + [False] * (TEXT + 1)


@torch.no_grad()
def test_without_vision_experts_an_image_passes_a_layer_unchanged() -> None:
    ids, types = sequence()
    model: Any = cogvlm().model
    for layer in model.model.layers:
        for module in (layer.self_attn.vision_expert_dense, layer.mlp.vision_mlp.down_proj):
            module.weight.zero_()
    states = model(ids, token_type_ids=types, use_cache=False, output_hidden_states=True).hidden_states
    is_vision = takes_vision_expert(types)[0]
    assert torch.equal(states[1][0, is_vision], states[0][0, is_vision])
    assert not torch.equal(states[1][0, ~is_vision], states[0][0, ~is_vision])


@torch.no_grad()
def test_a_vision_block_is_that_of_eva_clip() -> None:
    """The blocks of timm have no bias on keys, so ours is set to zero there."""
    config: Any = tiny_config().vision_config
    config._attn_implementation = "eager"  # noqa: SLF001 - nor has transformers a public one
    ours, width = VisionBlock(config).eval(), config.hidden_size
    for parameter in ours.parameters():
        nn.init.normal_(parameter, std=0.2)
    fused = ours.attention.query_key_value
    fused.bias[width : 2 * width] = 0
    theirs = EvaBlockPostNorm(
        dim=width, num_heads=config.num_heads, mlp_ratio=config.intermediate_size / width, qkv_fused=True
    ).eval()
    theirs.norm1.eps = theirs.norm2.eps = config.layer_norm_eps
    weights = {
        "attn.qkv.weight": fused.weight,
        "attn.q_bias": fused.bias[:width],
        "attn.v_bias": fused.bias[2 * width :],
        **{f"attn.proj.{name}": weight for name, weight in ours.attention.dense.state_dict().items()},
        **{f"mlp.{name}": weight for name, weight in ours.mlp.state_dict().items()},
        **{f"norm1.{name}": weight for name, weight in ours.input_layernorm.state_dict().items()},
        **{f"norm2.{name}": weight for name, weight in ours.post_attention_layernorm.state_dict().items()},
    }
    assert not theirs.load_state_dict(weights, strict=False).unexpected_keys
    states = torch.randn(2, 17, width, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(states), theirs(states), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_greedy_answers_with_and_without_cache_are_the_same() -> None:
    ids, types = sequence()
    model: Any = cogvlm().model
    pixels = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    answers = [
        model.generate(
            input_ids=ids,
            token_type_ids=types,
            attention_mask=torch.ones_like(ids),
            pixel_values=pixels,
            max_new_tokens=8,
            min_new_tokens=8,
            do_sample=False,
            use_cache=use_cache,
        )
        for use_cache in (True, False)
    ]
    assert answers[0].shape == (1, ids.shape[1] + 8)
    assert torch.equal(*answers)


def test_the_published_config_gives_the_published_sizes() -> None:
    """The tensors of the eight files on the hub: 1155, and 35.28 GB at two bytes a number."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CogVLMConfig(rms_norm_eps=1e-5))
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    assert len(sizes) == 1155
    assert sum(sizes.values()) == 17_639_685_376
    for pattern, expected in {
        r"model\.vision\.(patch_embedding|transformer)\.": 4_282_641_664,
        r"model\.vision\.(linear_proj|boi|eoi)": 142_622_720,
        r"vision_expert|vision_mlp": 6_476_005_376,
    }.items():
        assert sum(size for name, size in sizes.items() if re.search(pattern, name)) == expected, pattern


def test_tensors_have_the_published_names_and_shapes() -> None:
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(CogVLMConfig())
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    layer, block = "model.layers.31.", "model.vision.transformer.layers.62."
    assert {name: shapes[name] for name in PUBLISHED_SHAPES} == PUBLISHED_SHAPES
    of_layer = [name.removeprefix(layer) for name in shapes if name.startswith(layer)]
    of_block = [name.removeprefix(block) for name in shapes if name.startswith(block)]
    assert (len(of_layer), len(of_block)) == (12, 12)
    assert len(PUBLISHED_SHAPES) == 3 + 12 + 4 + 12 + 6 + 2


D, W, M = 4096, 1792, 15360
PUBLISHED_SHAPES: dict[str, tuple[int, ...]] = {
    "model.embed_tokens.weight": (32000, D),
    "model.norm.weight": (D,),
    "lm_head.weight": (32000, D),
    "model.layers.31.input_layernorm.weight": (D,),
    "model.layers.31.post_attention_layernorm.weight": (D,),
    "model.layers.31.self_attn.vision_expert_query_key_value.weight": (3 * D, D),
    "model.layers.31.self_attn.language_expert_query_key_value.weight": (3 * D, D),
    "model.layers.31.self_attn.vision_expert_dense.weight": (D, D),
    "model.layers.31.self_attn.language_expert_dense.weight": (D, D),
    "model.layers.31.mlp.vision_mlp.gate_proj.weight": (11008, D),
    "model.layers.31.mlp.vision_mlp.up_proj.weight": (11008, D),
    "model.layers.31.mlp.vision_mlp.down_proj.weight": (D, 11008),
    "model.layers.31.mlp.language_mlp.gate_proj.weight": (11008, D),
    "model.layers.31.mlp.language_mlp.up_proj.weight": (11008, D),
    "model.layers.31.mlp.language_mlp.down_proj.weight": (D, 11008),
    "model.vision.patch_embedding.proj.weight": (W, 3, 14, 14),
    "model.vision.patch_embedding.proj.bias": (W,),
    "model.vision.patch_embedding.cls_embedding": (1, W),
    "model.vision.patch_embedding.position_embedding.weight": (1226, W),
    "model.vision.transformer.layers.62.attention.query_key_value.weight": (3 * W, W),
    "model.vision.transformer.layers.62.attention.query_key_value.bias": (3 * W,),
    "model.vision.transformer.layers.62.attention.dense.weight": (W, W),
    "model.vision.transformer.layers.62.attention.dense.bias": (W,),
    "model.vision.transformer.layers.62.mlp.fc1.weight": (M, W),
    "model.vision.transformer.layers.62.mlp.fc1.bias": (M,),
    "model.vision.transformer.layers.62.mlp.fc2.weight": (W, M),
    "model.vision.transformer.layers.62.mlp.fc2.bias": (W,),
    "model.vision.transformer.layers.62.input_layernorm.weight": (W,),
    "model.vision.transformer.layers.62.input_layernorm.bias": (W,),
    "model.vision.transformer.layers.62.post_attention_layernorm.weight": (W,),
    "model.vision.transformer.layers.62.post_attention_layernorm.bias": (W,),
    "model.vision.linear_proj.linear_proj.weight": (D, W),
    "model.vision.linear_proj.norm1.weight": (D,),
    "model.vision.linear_proj.norm1.bias": (D,),
    "model.vision.linear_proj.dense_h_to_4h.weight": (11008, D),
    "model.vision.linear_proj.gate_proj.weight": (11008, D),
    "model.vision.linear_proj.dense_4h_to_h.weight": (D, 11008),
    "model.vision.boi": (1, 1, D),
    "model.vision.eoi": (1, 1, D),
}
