"""The configuration of CogVLM: the keys of the published `config.json`."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig
from typing_extensions import override

from vlm_adapters.errors import CheckpointError


class CogVLMVisionConfig(PreTrainedConfig):
    """The vision tower, EVA2-CLIP-E without its last block.

    Attributes:
        hidden_size: Width of the tower.
        num_heads: Heads of a block.
        num_hidden_layers: Number of blocks.
        intermediate_size: Width within the MLP of a block.
        image_size: Side of the square image, in pixels.
        patch_size: Side of a patch, in pixels.
        num_positions: Number of patches and the class token.
        in_channels: Colours of a pixel.
        hidden_act: Activation within the MLP.
        layer_norm_eps: Epsilon of the norms of the blocks.
        dropout_prob: Dropout in training; always 0.
    """

    model_type = "cogvlm_vision"
    base_config_key = "vision_config"

    hidden_size: int = 1792
    num_heads: int = 16
    num_hidden_layers: int = 63
    intermediate_size: int = 15360
    image_size: int = 490
    patch_size: int = 14
    num_positions: int = 1226
    in_channels: int = 3
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    dropout_prob: float = 0.0

    @override
    def __post_init__(self, **kwargs: Any) -> None:
        cells = self.image_size // self.patch_size
        if self.num_positions != cells**2 + 1:
            raise CheckpointError(
                f"The vision_config of CogVLM has {self.num_positions} positions, and an image of {self.image_size} "
                f"pixels in patches of {self.patch_size} needs {cells**2 + 1}. Download the checkpoint again."
            )
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]  # untyped in transformers


class CogVLMConfig(PreTrainedConfig):
    """CogVLM: a language model with a second expert for image tokens, and a vision tower.

    Attributes:
        vision_config: The vision tower.
        template_version: Format of prompts: `"chat"` or `"base"`.
        vocab_size: Number of token ids.
        hidden_size: Width of the language model.
        intermediate_size: Width within the MLP of an expert.
        num_hidden_layers: Number of layers.
        num_attention_heads: Heads of a layer.
        hidden_act: Activation within the MLPs.
        max_position_embeddings: Number of positions; all patches of an image share one.
        rms_norm_eps: Epsilon of the norms; that of the published files is not the default.
        pad_token_id: Id of padding, and of the placeholders of an image.
    """

    model_type = "cogvlm"
    sub_configs: ClassVar[dict[str, type[PreTrainedConfig]]] = {"vision_config": CogVLMVisionConfig}

    vision_config: dict[str, Any] | PreTrainedConfig | None = None
    template_version: str = "chat"
    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    initializer_range: float = 0.02
    use_cache: bool = True
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    tie_word_embeddings: bool = False

    @property
    def image_token_id(self) -> int | None:
        """Id of the placeholders of an image: that of padding. Only `token_type_ids` tell the two apart."""
        return self.pad_token_id

    @override
    def __post_init__(self, **kwargs: Any) -> None:
        if "num_multi_query_heads" in kwargs:
            raise CheckpointError(
                "This is a checkpoint of CogVLM2, whose config.json names the same class as that of CogVLM. Its model "
                "is another one (grouped heads, a bias in one expert, 2 x 2 patches merged), which is not implemented."
            )
        kwargs.pop("auto_map", None)  # it names the code in the repository, which is never run
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = CogVLMVisionConfig(**(self.vision_config or {}))
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]  # untyped in transformers
