"""Direct access to the model behind an adapter, for the oracle of every comparison."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.prompt import Prompt
from vlm_adapters.video import Video

if TYPE_CHECKING:
    from vlm_adapters.hf.backbone import TransformersBackbone


@dataclass(frozen=True)
class ReferencePass:
    """The attention and hidden states of a forward pass.

    Attributes:
        attention: True layer index -> weights `(B, n, S, S)` of the eager kernel, in [0, 1].
        hidden: Layer index -> output `(B, S, D)` of the layer; that of the last layer is after the final norm.
    """

    attention: Mapping[int, Tensor]
    hidden: Mapping[int, Tensor]

    def rows(self, index: int, positions: Tensor, columns: Tensor) -> Tensor:
        """Rows `(R, L, n, C)` of sequence `index` at `positions (R,)`, with the `columns (C,)` only."""
        layers = [self.attention[layer][index][:, positions][..., columns] for layer in sorted(self.attention)]
        return torch.stack(layers).permute(2, 0, 1, 3)


class Reference(Protocol):
    """Facts about a model that checks need, obtained without the methods of the adapter."""

    def run(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> ReferencePass:
        """Run the model once without the adapter; gradient flows into the parameters that require it.

        The adapter was loaded with the eager kernel in float32.
        """
        ...

    def image_positions(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> Tensor:
        """A mask `(B, S)` of the image tokens in the model's input."""
        ...

    def spell(self, adapter: BackboneAdapter, inputs: BackboneInputs, index: int, positions: Tensor) -> str:
        """The text that the tokens at `positions` of sequence `index` spell."""
        ...

    def special_tokens(self, adapter: BackboneAdapter) -> Sequence[str]:
        """Texts that the tokenizer would read as control tokens."""
        ...

    def set_padding_side(self, adapter: BackboneAdapter, side: Literal["left", "right"]) -> None:
        """Set the side on which the adapter pads its batches."""
        ...

    def stock_inputs(self, adapter: BackboneAdapter, prompt: Prompt) -> Mapping[str, Tensor] | None:
        """The model's tensors for a prompt as its users make them without the adapter; None where there is no such way.

        `input_ids` are among them.
        """
        ...


class TransformersReference(Reference):
    """The reference of every adapter that has a transformers `model` and `processor`."""

    @override
    def run(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> ReferencePass:
        model = _transformers(adapter).model
        length = inputs.tensors["input_ids"].shape[1]
        attention: dict[int, Tensor] = {}

        def record(module: nn.Module, _: tuple[Any, ...], output: object) -> None:
            weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
            if isinstance(weights, Tensor) and weights.shape[-2:] == (length, length):
                attention[int(cast("int", module.layer_idx))] = weights

        # `output.attentions` drops layers without attention, so its index is not a layer index.
        hooks = [
            m.register_forward_hook(record) for m in model.modules() if isinstance(getattr(m, "layer_idx", None), int)
        ]
        try:
            output = model(**inputs.tensors, output_hidden_states=True, use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return ReferencePass(attention, dict(enumerate(output.hidden_states[1:])))

    @override
    def image_positions(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> Tensor:
        config = _transformers(adapter).model.config
        token = int(config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index)
        return inputs.tensors["input_ids"] == token

    @override
    def spell(self, adapter: BackboneAdapter, inputs: BackboneInputs, index: int, positions: Tensor) -> str:
        tokenizer = _transformers(adapter).processor.tokenizer
        return str(tokenizer.decode(inputs.tensors["input_ids"][index, positions]))

    @override
    def special_tokens(self, adapter: BackboneAdapter) -> Sequence[str]:
        tokens = _transformers(adapter).processor.tokenizer.added_tokens_decoder.values()
        return [token.content for token in tokens]

    @override
    def set_padding_side(self, adapter: BackboneAdapter, side: Literal["left", "right"]) -> None:
        _transformers(adapter).processor.tokenizer.padding_side = side

    @override
    def stock_inputs(self, adapter: BackboneAdapter, prompt: Prompt) -> Mapping[str, Tensor] | None:
        processor = _transformers(adapter).processor
        if not processor.chat_template:
            return None
        with warnings.catch_warnings():  # what the stock processor warns of is nothing that an adapter can change
            warnings.simplefilter("ignore")
            return (_stock_video_inputs if prompt.videos else _stock_image_inputs)(processor, prompt)


def _transformers(adapter: BackboneAdapter) -> TransformersBackbone:
    return cast("TransformersBackbone", adapter)


def _stock_image_inputs(processor: Any, prompt: Prompt) -> Mapping[str, Tensor]:
    """The tensors of a prompt with images."""
    conversation = [
        {
            "role": message.role,
            "content": [
                {"type": "text", "text": part} if isinstance(part, str) else {"type": "image", "image": part}
                for part in message.content
            ],
        }
        for message in prompt.messages
    ]
    inputs: Mapping[str, Tensor] = processor.apply_chat_template(
        conversation,
        add_generation_prompt=prompt.messages[-1].role == "user",
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    return inputs


def _stock_video_inputs(processor: Any, prompt: Prompt) -> Mapping[str, Tensor]:
    """The tensors of a prompt with videos, whose frames are numbered evenly from 0 on and all shown."""

    def entry(part: object) -> dict[str, object]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "video" if isinstance(part, Video) else "image"}

    conversation = [
        {"role": message.role, "content": [entry(part) for part in message.content]} for message in prompt.messages
    ]
    text = processor.apply_chat_template(
        conversation, add_generation_prompt=prompt.messages[-1].role == "user", tokenize=False
    )
    metadata = [
        {
            "total_num_frames": len(video.frames),
            "fps": 1 / video.interval,
            "frames_indices": list(range(len(video.frames))),
            "height": video.size[0],
            "width": video.size[1],
            "duration": len(video.frames) * video.interval,
        }
        for video in prompt.videos
    ]
    inputs: Mapping[str, Tensor] = processor(
        text=[text],
        images=list(prompt.images) or None,
        videos=[list(video.frames) for video in prompt.videos],
        video_metadata=metadata,
        do_sample_frames=False,
        return_tensors="pt",
    )
    return inputs
