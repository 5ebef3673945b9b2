"""CogVLM for transformers 5: a Llama with a second set of weights for image tokens.

Modules have the names of the published tensors, so that nothing is renamed in loading.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedModel, initialization
from transformers.activations import ACT2FN
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.utils.generic import can_return_tuple
from transformers.utils.output_capturing import capture_outputs
from typing_extensions import override

from vlm_adapters.errors import CheckpointError
from vlm_adapters_cogvlm.attention import FusedAttention
from vlm_adapters_cogvlm.config import CogVLMConfig
from vlm_adapters_cogvlm.sequence import VISION, Routing, by_expert, position_ids_of
from vlm_adapters_cogvlm.vision import ImageFeatures, PatchEmbedding, VisionTower

ROPE_BASE = 10000.0

_CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"
"""The name of the cache in outputs; older releases have the second."""


class CogVLMMLP(nn.Module):
    """The gated MLP of one expert."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self.act_fn = ACT2FN[config.hidden_act]

    @override
    def forward(self, states: Tensor) -> Tensor:
        projected: Tensor = self.down_proj(self.act_fn(self.gate_proj(states)) * self.up_proj(states))
        return projected


class CogVLMExpertMLP(nn.Module):
    """The MLPs of both experts."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__()
        self.vision_mlp = CogVLMMLP(config)
        self.language_mlp = CogVLMMLP(config)

    @override
    def forward(self, states: Tensor, routing: Routing | None) -> Tensor:
        return by_expert(states, routing, self.vision_mlp, self.language_mlp)


class CogVLMAttention(FusedAttention):
    """One causal attention over all tokens; only the projections differ by expert."""

    def __init__(self, config: CogVLMConfig, layer_idx: int) -> None:
        super().__init__(config, config.num_attention_heads, is_causal=True)
        self.layer_idx = layer_idx
        width = config.hidden_size
        self.vision_expert_query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.language_expert_query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.vision_expert_dense = nn.Linear(width, width, bias=False)
        self.language_expert_dense = nn.Linear(width, width, bias=False)

    @override
    def forward(
        self, states: Tensor, mask: Any, rotary: tuple[Tensor, Tensor], routing: Routing | None, cache: Any
    ) -> tuple[Tensor, Any]:
        fused = by_expert(states, routing, self.vision_expert_query_key_value, self.language_expert_query_key_value)
        query, key, value = self.heads_of(fused)
        query, key = rotated(query, *rotary), rotated(key, *rotary)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        attended, weights = self.attend(query, key, value, mask)
        return by_expert(attended, routing, self.vision_expert_dense, self.language_expert_dense), weights


class CogVLMDecoderLayer(GradientCheckpointingLayer):
    """Attention and MLP, each behind a norm that both experts share."""

    def __init__(self, config: CogVLMConfig, layer_idx: int) -> None:
        super().__init__()
        self.self_attn = CogVLMAttention(config, layer_idx)
        self.mlp = CogVLMExpertMLP(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    @override
    def forward(
        self, states: Tensor, *, mask: Any, rotary: tuple[Tensor, Tensor], routing: Routing | None, cache: Any
    ) -> Tensor:
        attended, _ = self.self_attn(self.input_layernorm(states), mask, rotary, routing, cache)
        states = states + attended
        updated: Tensor = self.mlp(self.post_attention_layernorm(states), routing)
        return states + updated


class CogVLMPreTrainedModel(PreTrainedModel):
    """What transformers asks of a model to load, initialise and record it."""

    config_class = CogVLMConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    # Lists and dictionaries of a class, as transformers declares them.
    _no_split_modules = ["CogVLMDecoderLayer", "VisionBlock"]  # noqa: RUF012
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True
    _can_record_outputs = {  # noqa: RUF012
        "hidden_states": CogVLMDecoderLayer,
        "attentions": CogVLMAttention,
    }
    # Some files hold the frequencies of the rotary positions, which follow from the config.
    _keys_to_ignore_on_load_unexpected = [r"self_attn\.rotary_emb\.inv_freq$"]  # noqa: RUF012

    @override
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)  # type: ignore[no-untyped-call]  # untyped in transformers
        learned = {PatchEmbedding: ("cls_embedding",), VisionTower: ("boi", "eoi")}
        for name in learned.get(type(module), ()):
            initialization.normal_(getattr(module, name), std=self.config.initializer_range)


class CogVLMModel(CogVLMPreTrainedModel):
    """The vision tower and the layers of the language model."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        if vision._attn_implementation is None:  # noqa: SLF001 - transformers chooses for a model's own config only
            vision._attn_implementation = config._attn_implementation  # noqa: SLF001 - and has no public name
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(CogVLMDecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.vision = VisionTower(config)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]  # untyped in transformers

    def get_image_features(self, pixel_values: Tensor) -> ImageFeatures:
        """Look at images `(N, 3, H, W)`."""
        features: ImageFeatures = self.vision(pixel_values.to(self.vision.boi.dtype))
        return features

    @capture_outputs  # type: ignore[untyped-decorator]  # untyped in transformers
    @override
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        cache = kwargs.pop("past_key_values", cache)
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("Give either input_ids or inputs_embeds.")
        states = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if pixel_values is not None:
            states = self._with_images(states, token_type_ids, pixel_values)
        if cache is None and (self.config.use_cache if use_cache is None else use_cache):
            cache = DynamicCache(config=self.config)
        if position_ids is None:
            position_ids = self._position_ids(states, token_type_ids, attention_mask, cache)
        # Without the positions: transformers would take those that repeat for packed sequences.
        mask = create_causal_mask(self.config, states, attention_mask, cache)
        rotary = rotary_tables(position_ids, self.config.hidden_size // self.config.num_attention_heads, states)
        is_alone = states.shape[1] == 1  # such a token is one of language
        routing = None if token_type_ids is None or is_alone else Routing.of(token_type_ids)
        for layer in self.layers:
            states = layer(states, mask=mask, rotary=rotary, routing=routing, cache=cache)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(states), **{_CACHE: cache})

    def _with_images(self, states: Tensor, token_types: Tensor | None, pixel_values: Tensor) -> Tensor:
        """Put the tokens of the images in the places of type 1."""
        if token_types is None:
            raise ValueError("pixel_values need token_type_ids, which are 1 where the image is.")
        features = self.get_image_features(pixel_values).pooler_output
        places = token_types == VISION
        if (found := int(places.sum())) != (needed := features.shape[:-1].numel()):
            raise ValueError(f"token_type_ids have {found} places of images, and pixel_values need {needed}.")
        return states.masked_scatter(places[..., None], features.to(states))

    def _position_ids(self, states: Tensor, token_types: Tensor | None, attention_mask: Any, cache: Any) -> Tensor:
        if cache is not None and cache.get_seq_length():
            raise ValueError("A pass that continues a cache needs position_ids: patches share a position.")
        if token_types is None:
            token_types = torch.zeros(states.shape[:2], dtype=torch.long, device=states.device)
        is_padding_mask = isinstance(attention_mask, Tensor) and attention_mask.ndim == 2
        return position_ids_of(token_types, attention_mask if is_padding_mask else None)


class CogVLMForCausalLM(CogVLMPreTrainedModel, GenerationMixin):
    """CogVLM with its head over the vocabulary; a checkpoint must hold exactly its tensors."""

    def __init__(self, config: CogVLMConfig) -> None:
        super().__init__(config)
        self.model = CogVLMModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()  # type: ignore[no-untyped-call]  # untyped in transformers

    @classmethod
    @override
    def from_pretrained(cls, *args: Any, output_loading_info: bool = False, **kwargs: Any) -> Any:
        kwargs["ignore_mismatched_sizes"] = True  # so that the error below names the tensor
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, report = loaded
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            if wrong := sorted(map(str, report[kind])):
                raise CheckpointError(
                    f"The weights are not those of the CogVLM that config.json describes: {len(wrong)} "
                    f"{kind.replace('_', ' ')}, among them {wrong[0]}. Download the checkpoint again."
                )
        return (model, report) if output_loading_info else model

    @can_return_tuple  # type: ignore[untyped-decorator]  # untyped in transformers
    @override
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        outputs = self.model(
            input_ids,
            attention_mask,
            position_ids,
            kwargs.pop("past_key_values", cache),
            inputs_embeds,
            token_type_ids,
            pixel_values,
            use_cache,
            **kwargs,
        )
        logits = self.lm_head(outputs.last_hidden_state[:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{_CACHE: outputs.get(_CACHE)},
        )

    @override
    def _prepare_position_ids_for_generation(self, inputs_tensor: Tensor, model_kwargs: dict[str, Any]) -> Tensor:
        token_types = model_kwargs.get("token_type_ids")
        if token_types is None:
            plain: Any = super()
            positions: Tensor = plain._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)  # noqa: SLF001
            return positions
        return position_ids_of(token_types, model_kwargs.get("attention_mask"))


def rotary_tables(position_ids: Tensor, width: int, states: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines `(B, 1, S, width)` of the rotary positions, computed in float32, in the dtype of the states."""
    steps = torch.arange(0, width, 2, dtype=torch.float32, device=states.device)
    angles = position_ids.to(states.device)[..., None].float() / ROPE_BASE ** (steps / width)
    both = torch.cat([angles, angles], dim=-1)[:, None]
    return both.cos().to(states.dtype), both.sin().to(states.dtype)


def rotated(heads: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate `(B, n, S, width)`: pairs are a number of the first half and one of the second."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cosines + torch.cat([-second, first], dim=-1) * sines
