"""The task `"visual-grounding"` of `transformers.pipeline`; importing this module registers it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Sized
from typing import Any, Self

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoConfig, Pipeline, PreTrainedConfig
from transformers.pipelines import PIPELINE_REGISTRY
from transformers.pipelines.pt_utils import PipelineDataset, PipelineIterator
from typing_extensions import override

from vlm_adapters.errors import OptionError
from vlm_adapters.grounding.base import Grounder
from vlm_adapters.grounding.load import load_grounder
from vlm_adapters.grounding.result import GroundedPhrase
from vlm_adapters.images import ImageSource
from vlm_adapters.limits import shown
from vlm_adapters.prompt import PhraseLike, Prompt
from vlm_adapters.registry.checkpoints import DECODER_TYPE

TASK = "visual-grounding"

_OF_PIPELINES = ("_from_pipeline", "_commit_hash", "code_revision", "config")
"""What `transformers.pipeline` passes to every model, and means nothing to a grounder."""


class DecoderHubConfig(PreTrainedConfig):
    """A decoder's `config.json` as transformers sees it, so that it finds the task's model for a decoder's name."""

    model_type = DECODER_TYPE


class GroundingModel(nn.Module):
    """A grounder as a pipeline takes it.

    Attributes:
        grounder: Finds the masks.
        config: An empty config.

    Examples:
        >>> from transformers import pipeline
        >>> from vlm_adapters import open_dataset
        >>> from vlm_adapters.grounding.pipeline import GroundingModel
        >>> scene = open_dataset("scenes:count=1,seed=4")[0]
        >>> ground = pipeline("visual-grounding", model=GroundingModel.from_pretrained("tiny-llava"))
        >>> ground(scene.image, text=scene.text, phrases=["a pink cross"])[0]["box"]
        {'xmin': 30, 'ymin': 129, 'xmax': 185, 'ymax': 292}
    """

    input_modalities = ("image", "text")

    def __init__(self, grounder: Grounder) -> None:
        super().__init__()
        self.grounder = grounder
        self.config = DecoderHubConfig()

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike[str], **options: Any) -> Self:
        """Load a grounder.

        Args:
            name_or_path: As `load_grounder` takes it.
            options: Those of `load_grounder`.

        Raises:
            AdapterError: As `load_grounder`.
        """
        given = {name: value for name, value in options.items() if value is not None and name not in _OF_PIPELINES}
        return cls(load_grounder(name_or_path, **given))

    @property
    def device(self) -> torch.device:
        """Where the backbone takes its tokens."""
        return torch.device(self.grounder.adapter.info.device)

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the backbone."""
        dtype: torch.dtype = getattr(torch, self.grounder.adapter.info.dtype)
        return dtype

    def can_generate(self) -> bool:
        """Whether the pipeline would generate text: never."""
        return False

    @override
    def forward(self, prompts: Sequence[Prompt]) -> list[Any]:
        """Ground a batch of prompts."""
        return list(self.grounder.ground_all(prompts))


class VisualGroundingPipeline(Pipeline):
    """Finds the phrases of a sentence in an image.

    It takes an image and, as keywords, `text` and `phrases`; or a dict of the three, or many of either. Without phrases
    the whole text is one. An image gives a list with a dict per phrase: `phrase`, `score` (as in `GroundedPhrase`),
    `box` (`xmin`, `ymin`, `xmax`, `ymax` in pixels, the last two excluded; None where nothing was found), and `mask`,
    an image of mode `L` at the image's size, 255 where the phrase is.

    Args:
        model: A `GroundingModel`. It stays on its device unless another one is given.
        device: As `transformers.pipeline` takes it.
        options: What every pipeline takes, such as `batch_size`.

    Raises:
        OptionError: The model is something else, or cannot be moved to the device.
    """

    _load_processor: Any = False
    _load_image_processor: Any = False
    _load_video_processor: Any = False
    _load_feature_extractor: Any = False
    _load_tokenizer: Any = False

    def __init__(
        self, model: GroundingModel, *, device: int | str | torch.device | None = None, **options: Any
    ) -> None:
        if not isinstance(model, GroundingModel):
            raise OptionError(
                f"The pipeline {TASK} takes no {type(model).__name__}. Give it GroundingModel.from_pretrained(name), "
                "or the name of a decoder on the hub or in a folder."
            )
        options.pop("local_files_only", None)  # transformers.pipeline passes it on after it has used it
        options["device"] = model.device if device is None else device
        super().__init__(model, **options)  # type: ignore[arg-type] # it needs no more than GroundingModel has
        if model.device.type != self.device.type:
            raise OptionError(
                f"The {type(model.grounder).__name__} stays on {model.device}. Load it on {self.device}: "
                "GroundingModel.from_pretrained(name, device=...)."
            )

    def _sanitize_parameters(self, **options: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown := sorted(options.keys() - {"text", "phrases"}):
            raise OptionError(
                f"The pipeline {TASK} has no option {shown(unknown[0])}. Its options are text and phrases."
            )
        return {name: value for name, value in options.items() if value is not None}, {}, {}

    def preprocess(  # type: ignore[override] # the parameters are those that _sanitize_parameters gives
        self,
        input_: ImageSource | dict[str, Any],
        text: str | None = None,
        phrases: Sequence[PhraseLike] | None = None,
    ) -> dict[str, list[Prompt]]:
        """Make the prompt of an image, or of a dict with `image`, `text` and `phrases`."""
        given: dict[str, Any] = input_ if isinstance(input_, dict) else {"image": input_}
        if unknown := sorted(map(str, given.keys() - {"image", "text", "phrases"})):
            raise OptionError(f"An input has the key {shown(unknown[0])}. Give image, text and phrases.")
        text, phrases = given.get("text", text), given.get("phrases", phrases)
        if "image" not in given or text is None:
            raise OptionError(f"The pipeline {TASK} needs an image and a text: pipe(image, text=..., phrases=[...]).")
        return {"prompts": [Prompt.describe(given["image"], text, phrases or [(0, len(text))])]}

    def _forward(self, input_tensors: dict[str, list[Prompt]]) -> dict[str, list[Any]]:  # type: ignore[override]
        return {"groundings": self.model(input_tensors["prompts"])}

    def postprocess(self, model_outputs: dict[str, list[Any]]) -> list[dict[str, Any]]:  # type: ignore[override]
        """The phrases of a grounding as dicts."""
        (grounding,) = model_outputs["groundings"]
        return [_as_dict(phrase) for phrase in grounding.phrases]

    def get_iterator(
        self,
        inputs: Any,
        num_workers: int,
        batch_size: int,
        preprocess_params: dict[str, Any],
        forward_params: dict[str, Any],
        postprocess_params: dict[str, Any],
    ) -> Iterator[list[dict[str, Any]]]:
        """Ground many, in batches: prompts are no tensors, which transformers' own would pad."""
        kind = PipelineDataset if isinstance(inputs, Sized) else PipelineIterator
        dataset = kind(inputs, self.preprocess, preprocess_params)
        for batch in DataLoader(dataset, batch_size=batch_size, num_workers=num_workers, collate_fn=list):
            prompts = [prompt for each in batch for prompt in each["prompts"]]
            found: dict[str, list[Any]] = self.forward({"prompts": prompts}, **forward_params)  # type: ignore[no-untyped-call]
            for grounding in found["groundings"]:
                yield self.postprocess({"groundings": [grounding]}, **postprocess_params)


def _as_dict(found: GroundedPhrase) -> dict[str, Any]:
    box = None if found.box is None else dict(zip(("xmin", "ymin", "xmax", "ymax"), found.box, strict=True))
    mask: Image.Image = found.packed.image().convert("L")
    return {"phrase": found.phrase.text, "score": found.score, "box": box, "mask": mask}


AutoConfig.register(DECODER_TYPE, DecoderHubConfig, exist_ok=True)
if TASK not in PIPELINE_REGISTRY.get_supported_tasks():  # a module that is loaded again would warn
    PIPELINE_REGISTRY.register_pipeline(
        TASK, pipeline_class=VisualGroundingPipeline, pt_model=GroundingModel, type="multimodal"
    )
