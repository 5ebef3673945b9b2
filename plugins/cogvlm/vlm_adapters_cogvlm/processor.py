"""CogVLM's prompts and images: the image squashed to a square, its tokens at the beginning, then the text."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any, Self

from transformers import BatchFeature, CLIPImageProcessorPil, LlamaTokenizer, PreTrainedTokenizerBase, ProcessorMixin
from transformers.utils.hub import cached_file
from typing_extensions import override

from vlm_adapters.errors import CheckpointError
from vlm_adapters_cogvlm.config import CogVLMConfig
from vlm_adapters_cogvlm.sequence import VISION

TOKENIZER = "lmsys/vicuna-7b-v1.5"
"""The tokenizer of the published checkpoints, which contain none."""

_PLACEHOLDERS = (
    "{% for message in messages %}{% for part in message['content'] if part['type'] == 'image' %}"
    "{{ pad_token }}{% endfor %}{% endfor %}"
)
_TEXTS = "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
_END = "{{ eos_token if loop.last }}"
_UNKNOWN = "{{ raise_exception('CogVLM takes the roles user and assistant') }}"

CHAT_TEMPLATES = {
    "chat": (
        _PLACEHOLDERS + "{% for message in messages %}{% if message['role'] == 'user' %}"
        "{{ '' if loop.first else '\n' }}{{ 'Question: ' }}" + _TEXTS + "{{ ' Answer:' }}"
        "{% elif message['role'] == 'assistant' %}{{ ' ' }}" + _TEXTS + _END + "{% else %}" + _UNKNOWN + "{% endif %}"
        "{% endfor %}"
    ),
    "base": (
        _PLACEHOLDERS + "{% for message in messages %}{% if message['role'] == 'user' and loop.first %}" + _TEXTS +
        "{% elif message['role'] == 'assistant' and loop.last %}{{ ' ' }}" + _TEXTS + _END +
        "{% else %}{{ raise_exception('a base checkpoint takes one question, and its answer') }}{% endif %}"
        "{% endfor %}"
    ),
}  # fmt: skip
"""The format of prompts with an image, by `template_version`; an answer ends as in training."""


class CogVLMProcessor(ProcessorMixin):
    """Turns a text that begins with the placeholder of an image into `[begin] [image] [text]`.

    The placeholder is the token of padding, as in the published code: `token_type_ids` tell where the image is. The
    text is encoded apart from what is before it.

    Args:
        image_processor: Makes the pixels.
        tokenizer: A Llama tokenizer.
        patch_size: Side of a patch in pixels.
        chat_template: Format of prompts; that of `"chat"` if None.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        patch_size: int = 14,
        chat_template: str | None = None,
    ) -> None:
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.unk_token
        self.patch_size = patch_size
        self.image_token: str = tokenizer.pad_token
        self.image_token_id: int = tokenizer.pad_token_id
        template = chat_template or CHAT_TEMPLATES["chat"]
        super().__init__(image_processor, tokenizer, chat_template=template)  # type: ignore[no-untyped-call]  # untyped in transformers

    @property
    def cells(self) -> int:
        """Number of patches along each side of the image."""
        return int(self.image_processor.size["height"]) // self.patch_size

    @property
    def joins_words_to_image(self) -> bool:
        """Whether the tokenizer encodes a word right behind the placeholder in another way than at the beginning."""
        behind = self.tokenizer(f"{self.image_token}a", add_special_tokens=False)["input_ids"][1:]
        return bool(behind != self.tokenizer("a", add_special_tokens=False)["input_ids"])

    @classmethod
    @override
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Load a saved processor, or build that of a published checkpoint, which contains the model alone."""
        hub = {name: kwargs[name] for name in _HUB if name in kwargs}
        if _has(pretrained_model_name_or_path, "processor_config.json", hub):
            processor: Self = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
            return processor
        config = CogVLMConfig.from_pretrained(pretrained_model_name_or_path, **hub)
        tokenizer = _tokenizer(pretrained_model_name_or_path, hub)
        if len(tokenizer) != config.vocab_size:
            raise CheckpointError(
                f"The tokenizer has {len(tokenizer)} tokens and the model {config.vocab_size}. Copy tokenizer.model "
                f"and tokenizer_config.json of {TOKENIZER} into the folder of the checkpoint."
            )
        return cls.of(config, tokenizer)

    @classmethod
    def of(cls, config: CogVLMConfig, tokenizer: PreTrainedTokenizerBase) -> Self:
        """Build the processor that belongs to a config.

        Raises:
            CheckpointError: The format of its prompts is not known.
        """
        if config.template_version not in CHAT_TEMPLATES:
            raise CheckpointError(
                f"config.json names the template_version {config.template_version!r}, whose prompts are not known; "
                f"these are: {', '.join(CHAT_TEMPLATES)}. Download the checkpoint again."
            )
        vision: Any = config.vision_config
        return cls(
            image_processor(vision.image_size),
            tokenizer,
            patch_size=vision.patch_size,
            chat_template=CHAT_TEMPLATES[config.template_version],
        )

    @override
    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        *,
        padding: bool | str = False,
        add_special_tokens: bool = True,
        return_tensors: str | None = None,
        **_: Any,
    ) -> BatchFeature:
        """Encode texts and their images.

        Args:
            images: The images in the order of the texts, or one list of images per text.
            text: One text or several, each beginning with the placeholder if it has an image.
            padding: Whether to pad the texts to one length.
            add_special_tokens: Whether the begin token is put before.
            return_tensors: `"pt"` for tensors.
        """
        texts = [text] if isinstance(text, str) else list(text or ())
        encoded = [self._encode(each, add_special_tokens=add_special_tokens) for each in texts]
        rows = {
            "input_ids": [ids for ids, _ in encoded],
            "token_type_ids": [types for _, types in encoded],
            "attention_mask": [[1] * len(ids) for ids, _ in encoded],
        }
        features = dict(self.tokenizer.pad(rows, padding=padding)) if encoded else {}
        if flat := _flat(images):
            features |= self.image_processor(flat, return_tensors=return_tensors)
        return BatchFeature(features, tensor_type=return_tensors)

    def _encode(self, text: str, *, add_special_tokens: bool) -> tuple[list[int], list[int]]:
        """Ids and types of one text."""
        begin = [self.tokenizer.bos_token_id] if add_special_tokens and self.tokenizer.bos_token_id is not None else []
        words = text.removeprefix(self.image_token)
        image = [self.image_token_id] * (self.cells**2 + 2 if words != text else 0)
        ids = self.tokenizer(words, add_special_tokens=False)["input_ids"] if words else []
        return [*begin, *image, *ids], [0] * len(begin) + [VISION] * len(image) + [0] * len(ids)


_HUB = ("cache_dir", "force_download", "local_files_only", "token", "revision", "subfolder")


def image_processor(side: int) -> CLIPImageProcessorPil:
    """Squash an image to a square, with the means and deviations of CLIP, as Pillow's bicubic filter does it."""
    return CLIPImageProcessorPil(size={"height": side, "width": side}, do_center_crop=False)


def _tokenizer(source: Any, hub: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model, else that of the model card."""
    elsewhere = {name: value for name, value in hub.items() if name not in ("revision", "subfolder")}
    for place, options in ((source, hub), (TOKENIZER, elsewhere)):
        # Of a place without these files, transformers makes a tokenizer without a vocabulary.
        is_converted = _has(place, "tokenizer.json", options)
        if not is_converted and not _has(place, "tokenizer.model", options):
            continue
        if not is_converted and not find_spec("sentencepiece"):
            raise CheckpointError(
                f"The tokenizer.model of {place} cannot be read without sentencepiece, which is not installed: "
                "pip install sentencepiece protobuf."
            )
        tokenizer: PreTrainedTokenizerBase = LlamaTokenizer.from_pretrained(place, **options)
        return tokenizer
    raise CheckpointError(
        f"Checkpoints of CogVLM come without a tokenizer, and that of {TOKENIZER} cannot be downloaded. Copy its "
        f"tokenizer.model and tokenizer_config.json into {source}, or run `hf download {TOKENIZER} tokenizer.model "
        "tokenizer_config.json` where the hub can be reached."
    )


def _has(source: Any, name: str, hub: dict[str, Any]) -> bool:
    quiet = {f"_raise_exceptions_for_{what}": False for what in ("missing_entries", "gated_repo", "connection_errors")}
    return cached_file(source, name, **hub, **quiet) is not None


def _flat(images: Any) -> list[Any]:
    """The images of nested lists, in order."""
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        return [images]
    return [image for part in images for image in _flat(part)]
