"""The base of every adapter over transformers: loading, prompts to tensors, extraction."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, ClassVar, Self

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoConfig, BatchFeature, PreTrainedModel, ProcessorMixin
from typing_extensions import override

from vlm_adapters.backbone.fingerprint import ModuleFingerprint
from vlm_adapters.backbone.grids import BackboneInputs, Grids, ImageGrid
from vlm_adapters.backbone.layout import ImageLayout, place_layouts
from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.conversion import PromptsLike, as_prompts
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import BackboneError, CheckpointError, OptionError, PromptError
from vlm_adapters.geometry import CoordinateFrame, Size
from vlm_adapters.hf.chat import RenderedPrompt, render
from vlm_adapters.hf.extraction import ResolvedRequest, capture_pass, plan_rows
from vlm_adapters.hf.generation import AnsweringBackbone
from vlm_adapters.hf.image_features import ImageFeatures
from vlm_adapters.hf.inputs import inputs_of, process_images, warn_about_images
from vlm_adapters.hf.lengths import check_before_pixels
from vlm_adapters.hf.placement import input_device
from vlm_adapters.hf.pretrained import load_pretrained
from vlm_adapters.hf.shared_prefix import AttentionPattern, divide, select_lines, shared_work, tensors_of
from vlm_adapters.hf.sizes import check_layouts
from vlm_adapters.hf.videos import process_videos
from vlm_adapters.hf.windows import batched_windows
from vlm_adapters.hf.wrappers import check_callable_inside, unwrapped
from vlm_adapters.limits import DEFAULT_LIMITS, Limits, shown
from vlm_adapters.prompt import Prompt
from vlm_adapters.registry.discovery import list_adapters
from vlm_adapters.registry.load_options import LOADER_KEYWORDS, unknown_option
from vlm_adapters.registry.versions import typed_errors
from vlm_adapters.video import Video

_ANY_SIZE = (512, 512)
"""An image size that every family takes; the size of a cell does not depend on it."""


class TransformersBackbone(AnsweringBackbone, ABC):
    """An adapter over a model and a processor of transformers.

    A family says how an image becomes tokens (`layouts`) and, where the stock way is not right, how its processor takes
    images (`process_images`) and chats (`render`). Everything else is inherited.

    Attributes:
        name: `model_type` of the checkpoint's config.
        processor: The checkpoint's processor.
        limits: What of images and templates is accepted.
        batch_windows: Whether `extract` lets windows pass the vision tower together; families set the default.

    Examples:
        >>> from vlm_adapters import TransformersBackbone, load_adapter
        >>> adapter = load_adapter("tiny-llava")
        >>> isinstance(adapter, TransformersBackbone), type(adapter.model).__name__
        (True, 'LlavaForConditionalGeneration')
    """

    limits: Limits = DEFAULT_LIMITS
    batch_windows: bool = False
    attention_pattern: AttentionPattern = "undeclared"
    """How tokens see each other, by which several texts can follow one image in a pass."""
    grid_names: ClassVar[tuple[str, ...]] = ("fine",)
    """Names of the grids that an image may have, the finest last; see `BackboneInfo.grids`."""
    options: ClassVar[tuple[str, ...]] = ()
    """The family's options: keyword-only arguments of the constructor, kept in attributes of the same names."""
    auto_model: ClassVar[str] = "AutoModelForImageTextToText"
    """The class of transformers that loads checkpoints of the family."""
    config_class: ClassVar[Any] = AutoConfig
    """Reads a `config.json` that names no `model_type` (see `AdapterSpec.architectures`), or that of a larger model."""

    def __init__(
        self, model: PreTrainedModel, processor: ProcessorMixin, *, checkpoint: str = "", revision: str | None = None
    ) -> None:
        self.model = model
        self.model.eval().requires_grad_(requires_grad=False)
        self.processor: Any = processor  # every family adds attributes to it
        self.name: str = self.model.config.model_type
        self._checkpoint = checkpoint or str(self.model.config.name_or_path)
        self._revision = revision
        self._fingerprint = ModuleFingerprint()

    @override
    def __repr__(self) -> str:
        name, kind = alias_of(self._checkpoint) or self._checkpoint, type(self.model).__name__
        return f"{type(self).__name__}({shown(name)}: {kind}, {self.model.dtype} on {self.device})"

    @property
    def model(self) -> PreTrainedModel:
        """The frozen model, in eval mode, without its wrappers (peft, `torch.compile`)."""
        return self._model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self._model = unwrapped(model)

    @property
    def device(self) -> torch.device:
        """The device of inputs and results."""
        return input_device(self.model)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        device: str | int | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        trust_remote_code: bool = False,
        **options: Any,
    ) -> Self:
        """Load a checkpoint with transformers.

        Args:
            name_or_path: Hub name, directory, or directory of a LoRA, which also loads its base.
            device: `"auto"` takes the accelerator if there is one, else the CPU.
            dtype: `"auto"` takes the dtype of the checkpoint on an accelerator and float32 on a CPU.
            revision: Commit, tag or branch on the hub.
            trust_remote_code: Whether code from the checkpoint may run.
            options: Loading options, as `load_adapter` names them, and the family's `options`.

        Raises:
            CheckpointError: The checkpoint is missing or incomplete.
            OptionError: An option is unknown, or its value cannot be used.
        """
        loader = {name: options.pop(name) for name in LOADER_KEYWORDS if name in options}
        if unknown := sorted(set(options) - set(cls.options)):
            raise OptionError(unknown_option(cls.__name__, unknown[0], cls.options))
        placed: dict[str, Any] = {"device": device, "dtype": dtype, "revision": revision}
        loader |= {"auto_model": cls.auto_model, "config_class": cls.config_class}
        loaded = load_pretrained(name_or_path, **placed, trust_remote_code=trust_remote_code, loader=loader)
        checkpoint = os.fspath(name_or_path)
        with typed_errors(f"Loading {shown(checkpoint)}", CheckpointError):
            adapter = cls(loaded.model, loaded.processor, checkpoint=checkpoint, revision=loaded.revision, **options)
        adapter.limits = loader.get("limits", DEFAULT_LIMITS)
        adapter.batch_windows = loader.get("batch_windows", adapter.batch_windows)
        return adapter

    @abstractmethod
    def layouts(self, sizes: Sequence[Size]) -> Sequence[Sequence[ImageLayout]]:
        """Describe how the images `(H, W)` of one prompt are resized, padded and cut into cells.

        Returns:
            For every image its layouts, one per grid, in the order of their tokens.

        Raises:
            ImageError: The family takes no image of such a size.
        """

    @property
    def image_token_ids(self) -> frozenset[int]:
        """Ids of the tokens that layouts count: those of cells, and newlines between their rows."""
        return frozenset({int(self.processor.tokenizer.convert_tokens_to_ids(self.processor.image_token))})

    def video_layouts(self, size: Size, frames: int) -> Sequence[ImageLayout]:
        """Describe how a video of `frames` frames `(H, W)` becomes cells: its layouts in the order of their tokens.

        Each says with `frames` which of them it shows.

        Raises:
            PromptError: The family takes no video.
        """
        raise PromptError(
            f"The adapter of {self.name} takes no video, such as this of {frames} frames of {size[1]} x {size[0]} "
            "pixels. Give its frames as images, or use a family that takes videos."
        )

    @property
    def video_token_ids(self) -> frozenset[int]:
        """Ids of the tokens that the layouts of videos count."""
        return frozenset({int(self.processor.tokenizer.convert_tokens_to_ids(self.processor.video_token))})

    def process_videos(self, videos: Sequence[Video], **options: Any) -> BatchFeature:
        """Run the processor over videos without text: a line of tokens for each, and the model's tensors."""
        return process_videos(self.processor, videos, options)

    def locate_image_tokens(self, inputs: BackboneInputs) -> list[list[ImageGrid]]:
        """Find the grids of every prompt's images: one list per prompt."""
        return [
            [
                grid
                for index, (layouts, positions) in enumerate(zip(self._layouts(prompt), of_images, strict=True))
                for grid in place_layouts(layouts, positions, index, self.grid_names)
            ]
            for prompt, of_images in zip(inputs.prompts, inputs.image_tokens, strict=True)
        ]

    def select_images(
        self, features: Mapping[str, Tensor], indices: Sequence[int], sizes: Sequence[Size]
    ) -> dict[str, Tensor]:
        """Choose the model's tensors of some images by their indices, which may repeat: here one line of each.

        Args:
            features: The tensors of all images.
            indices: Which images are chosen.
            sizes: `(H, W)` of all images.
        """
        return select_lines(features, indices, sizes)

    def position_ids(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Positions `(..., 1, S)` of one sequence without padding, as the model counts them by itself."""
        return torch.arange(tensors["input_ids"].shape[1], device=tensors["input_ids"].device)[None]

    def process_images(self, images: Sequence[Sequence[Image.Image]], **options: Any) -> BatchFeature:
        """Run the processor over images without text: a line of tokens for each image, and the model's tensors.

        Args:
            images: For every prompt its upright RGB images, which the processor takes together; at least one.
            options: Passed to the processor.
        """
        return process_images(self.processor, images, self.image_token_ids, options)

    def render(self, prompt: Prompt) -> RenderedPrompt:
        """Render a prompt in the text format that the family was trained on, with the processor's chat template.

        Raises:
            PromptError: The template refuses the prompt, or drops a text or an image of it.
        """
        return render(self.processor, prompt, self.limits)

    def preprocess(self, prompts: PromptsLike) -> BackboneInputs:
        """Turn prompts, in any form of `PromptsLike`, into the model's inputs, on its device. Uses no network.

        Raises:
            PromptError: There is none, or a prompt cannot be encoded or is too long for the model.
            ImageError: The family takes no image of such a size.
            BackboneError: The processor raised an error.
            OptionError: The model was sharded as one unit after the adapter was built.
        """
        check_callable_inside(self.model)
        prompts = as_prompts(prompts)
        warn_about_images(self._checkpoint, prompts)
        with typed_errors(f"The processor of {self.name}", BackboneError):
            for prompt in prompts:  # a size that the family refuses, or a long text, is an error before any work
                layouts = [one for of_image in self._layouts(prompt) for one in of_image]
                check_before_pixels(prompt, layouts, self.render, self.processor.tokenizer, self.model)
            return inputs_of(self, prompts)

    def extract(self, inputs: BackboneInputs, request: GridRequest | None = None) -> list[list[Grids]]:
        """Run the model once and return, per prompt, one `Grids` per `ImageGrid`. No gradient unless requested.

        Layers after the last one requested do not run, and neither does the head over the vocabulary.

        Raises:
            RequestError: The request names layers, heads or rows that do not exist.
            CaptureError: Rows, or the requested gradient, cannot be computed exactly.
            BackboneError: The model raised an error.
        """
        chosen = ResolvedRequest.of(request := request or GridRequest(), self._info(fingerprint=""))
        grids = self.locate_image_tokens(inputs)
        mask = inputs.tensors["attention_mask"].cpu()
        plans = [
            plan_rows(tokens, of_prompt, keep, request)
            for tokens, of_prompt, keep in zip(inputs.phrase_tokens, grids, mask, strict=True)
        ]
        found: dict[int, list[Grids]] = {}
        tensors = tensors_of(inputs, self.select_images)
        passes = divide(self.model, inputs, tensors, self.attention_pattern, self.position_ids)
        features = ImageFeatures(self.model, inputs, passes, tensors)
        gradient = torch.set_grad_enabled(request.gradient and torch.is_grad_enabled())
        with gradient, batched_windows(self.model) if self.batch_windows else nullcontext():
            for forward_pass in passes:
                with features.of(forward_pass):
                    for b, captured in capture_pass(self.model, forward_pass, inputs, plans, chosen):
                        found[b] = chosen.grids(grids[b], plans[b], captured)
        return [found[b] for b in range(len(grids))]

    def coordinate_frame(self, size: Size) -> CoordinateFrame | None:
        """The frame of the model's boxes, from the `pointing` of its `AdapterSpec`; see `SupportsPointing`."""
        entry = next((entry for entry in list_adapters() if entry.name == self.name and not entry.broken), None)
        if entry is None or entry.spec is None or entry.spec.pointing is None:
            return None
        height, width = (1000, 1000) if entry.spec.pointing == "thousandths" else self.layouts([size])[0][0].resized
        return CoordinateFrame(width, height)

    @property
    def info(self) -> BackboneInfo:
        """What a consumer must know of the backbone."""
        return self._info(self._fingerprint.of(self.model))

    def _info(self, fingerprint: str) -> BackboneInfo:
        """The same with this fingerprint, so that `extract`, which needs none, has not to look at all weights."""
        with typed_errors(f"The config of {self.name}", BackboneError):
            config = self.model.config.get_text_config(decoder=True)
            finest = max(self.layouts([_ANY_SIZE])[0], key=lambda layout: self.grid_names.index(layout.name))
            kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
            layers = [i for i, kind in enumerate(kinds) if re.fullmatch("(?!.*linear).*_attention", kind)]
            return BackboneInfo(
                model_type=self.name,
                checkpoint=self._checkpoint,
                revision=self._revision,
                num_layers=config.num_hidden_layers,
                attention_layers=tuple(layers),
                num_heads=config.num_attention_heads,
                hidden_size=config.hidden_size,
                cell=finest.cell,
                grids=self.grid_names if finest.placed else (),
                shared=shared_work(self.model, self.attention_pattern),
                options=tuple((name, getattr(self, name)) for name in self.options),
                device=str(self.device),
                dtype=str(self.model.dtype).removeprefix("torch."),
                fingerprint=fingerprint,
            )

    def _layouts(self, prompt: Prompt) -> Sequence[Sequence[ImageLayout]]:
        """The layouts of the images and videos of a prompt, none of them larger than the limits."""
        sizes = [(image.height, image.width) for image in prompt.images]
        pixels = ", ".join(f"{width} x {height}" for height, width in sizes)
        with typed_errors(f"The image processor of {self.name}, given {pixels} pixels,", BackboneError):
            of_images = check_layouts(self.layouts(sizes), sizes, self.limits) if sizes else []
        with typed_errors(f"The video processor of {self.name}", BackboneError):
            of_videos = [self.video_layouts(video.size, len(video.frames)) for video in prompt.videos]
            check_layouts(of_videos, [video.size for video in prompt.videos], self.limits)
        by_kind = iter(of_images), iter(of_videos)
        return [next(by_kind[isinstance(part, Video)]) for part in prompt.media]
