"""The vision tower of CogVLM, and the projection of its patches into the language model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from typing_extensions import override

from vlm_adapters_cogvlm.attention import FusedAttention
from vlm_adapters_cogvlm.config import CogVLMConfig, CogVLMVisionConfig


class PatchEmbedding(nn.Module):
    """Patches row by row behind a class token, each with its learned position."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.cls_embedding = nn.Parameter(torch.zeros(1, config.hidden_size))
        self.position_embedding = nn.Embedding(config.num_positions, config.hidden_size)

    @override
    def forward(self, pixel_values: Tensor) -> Tensor:
        patches = self.proj(pixel_values).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls_embedding.expand(len(patches), 1, -1), patches], dim=1)
        positions: Tensor = self.position_embedding(torch.arange(tokens.shape[1], device=tokens.device))
        return tokens + positions


class VisionAttention(FusedAttention):
    """Full attention over the tokens of an image."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__(config, config.num_heads, is_causal=False)
        self.query_key_value = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    @override
    def forward(self, states: Tensor) -> Tensor:
        attended, _ = self.attend(*self.heads_of(self.query_key_value(states)), None)
        projected: Tensor = self.dense(attended)
        return projected


class VisionMLP(nn.Module):
    """Two linear layers."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    @override
    def forward(self, states: Tensor) -> Tensor:
        projected: Tensor = self.fc2(self.activation(self.fc1(states)))
        return projected


class VisionBlock(nn.Module):
    """A block that norms the output of each branch before it is added.

    The published names of the norms say otherwise: `input_layernorm` follows the attention and
    `post_attention_layernorm` the MLP.
    """

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.attention = VisionAttention(config)
        self.mlp = VisionMLP(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_attention_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    @override
    def forward(self, states: Tensor) -> Tensor:
        states = states + self.input_layernorm(self.attention(states))
        updated: Tensor = self.post_attention_layernorm(self.mlp(states))
        return states + updated


class VisionTransformer(nn.Module):
    """The blocks of the tower; no norm follows the last."""

    def __init__(self, config: CogVLMVisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionBlock(config) for _ in range(config.num_hidden_layers))

    @override
    def forward(self, states: Tensor) -> Tensor:
        for layer in self.layers:
            states = layer(states)
        return states


class GatedProjection(nn.Module):
    """From patches of the tower to tokens of the language model."""

    def __init__(self, config: CogVLMConfig, width: int) -> None:
        super().__init__()
        self.linear_proj = nn.Linear(width, config.hidden_size, bias=False)
        self.norm1 = nn.LayerNorm(config.hidden_size)
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.dense_h_to_4h = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.dense_4h_to_h = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    @override
    def forward(self, patches: Tensor) -> Tensor:
        states = nn.functional.gelu(self.norm1(self.linear_proj(patches)))
        gates = nn.functional.silu(self.gate_proj(states))
        projected: Tensor = self.dense_4h_to_h(gates * self.dense_h_to_4h(states))
        return projected


@dataclass
class ImageFeatures:
    """What the tower makes of images.

    Attributes:
        last_hidden_state: `(N, patches, width of the tower)`.
        pooler_output: `(N, patches + 2, D)`: the tokens of the language model, a begin and an end around the patches.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor


class VisionTower(nn.Module):
    """The tower, the projection, and the learned vectors before and after the patches."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        vision: Any = config.vision_config
        self.patch_embedding = PatchEmbedding(vision)
        self.transformer = VisionTransformer(vision)
        self.linear_proj = GatedProjection(config, vision.hidden_size)
        self.boi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.eoi = nn.Parameter(torch.zeros(1, 1, config.hidden_size))

    @override
    def forward(self, pixel_values: Tensor) -> ImageFeatures:
        """Look at images `(N, 3, H, W)`."""
        patches = self.transformer(self.patch_embedding(pixel_values))[:, 1:]  # without the class token
        projected = self.linear_proj(patches)
        begin, end = (vector.to(projected.device).expand(len(patches), 1, -1) for vector in (self.boi, self.eoi))
        return ImageFeatures(patches, torch.cat([begin, projected, end], dim=1))
