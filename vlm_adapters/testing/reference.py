"""Asking the model behind an adapter directly, past the adapter: the other half of every comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import BackboneAdapter

if TYPE_CHECKING:
    from vlm_adapters.hf.backbone import TransformersBackbone


@dataclass(frozen=True)
class ReferencePass:
    """All that a forward pass can show.

    Attributes:
        attention: True layer index -> `(B, n, S, S)` in [0, 1]: the eager kernel's own weights.
        hidden: Layer index -> `(B, S, D)`: output of the layer; that of the last one after the final norm.
    """

    attention: Mapping[int, Tensor]
    hidden: Mapping[int, Tensor]

    def rows(self, index: int, positions: Tensor, columns: Tensor) -> Tensor:
        """`(R, L, n, C)`: rows of sequence `index` at `positions (R,)`, and of them the `columns (C,)`."""
        layers = [self.attention[layer][index][:, positions][..., columns] for layer in sorted(self.attention)]
        return torch.stack(layers).permute(2, 0, 1, 3)


class Reference(Protocol):
    """What the checks must know of a model, got without the adapter's own methods."""

    def run(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> ReferencePass:
        """Run the model once, its own plain way: gradient flows into the parameters that require it.

        The adapter was loaded with the eager kernel in float32.
        """
        ...

    def image_positions(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> Tensor:
        """`(B, S)` bool: where the model's input has image tokens."""
        ...

    def spell(self, adapter: BackboneAdapter, inputs: BackboneInputs, index: int, positions: Tensor) -> str:
        """The text that the tokens at `positions` of sequence `index` spell."""
        ...

    def special_tokens(self, adapter: BackboneAdapter) -> Sequence[str]:
        """Texts that the tokenizer would take for control tokens."""
        ...

    def set_padding_side(self, adapter: BackboneAdapter, side: Literal["left", "right"]) -> None:
        """Make the adapter's batches be padded on this side."""
        ...


class TransformersReference:
    """The reference of every adapter that has a transformers `model` and `processor`."""

    def run(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> ReferencePass:
        """See `Reference`."""
        model = _transformers(adapter).model
        length = inputs.tensors["input_ids"].shape[1]
        attention: dict[int, Tensor] = {}

        def keep(module: nn.Module, _: tuple[Any, ...], output: object) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(weights, Tensor) and weights.shape[-2:] == (length, length):
                attention[int(cast("int", module.layer_idx))] = weights

        # `output.attentions` drops layers that have no attention, so its index is no layer index.
        hooks = [
            m.register_forward_hook(keep) for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int)
        ]
        try:
            output = model(**inputs.tensors, output_hidden_states=True, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return ReferencePass(attention, dict(enumerate(output.hidden_states[1:])))

    def image_positions(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> Tensor:
        """See `Reference`."""
        config = _transformers(adapter).model.config
        token = int(config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index)
        return inputs.tensors["input_ids"] == token

    def spell(self, adapter: BackboneAdapter, inputs: BackboneInputs, index: int, positions: Tensor) -> str:
        """See `Reference`."""
        tokenizer = _transformers(adapter).processor.tokenizer
        return str(tokenizer.decode(inputs.tensors["input_ids"][index, positions]))

    def special_tokens(self, adapter: BackboneAdapter) -> Sequence[str]:
        """See `Reference`."""
        tokens = _transformers(adapter).processor.tokenizer.added_tokens_decoder.values()
        return [token.content for token in tokens]

    def set_padding_side(self, adapter: BackboneAdapter, side: Literal["left", "right"]) -> None:
        """See `Reference`."""
        _transformers(adapter).processor.tokenizer.padding_side = side


def _transformers(adapter: BackboneAdapter) -> TransformersBackbone:
    return cast("TransformersBackbone", adapter)
