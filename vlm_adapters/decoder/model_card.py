"""The page of a decoder on the hub: what it is, how it is used, and what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from pydantic import BaseModel, ValidationError

from vlm_adapters.data.validated import first_mistake
from vlm_adapters.decoder.checkpoint import DecoderConfig
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, OptionError
from vlm_adapters.limits import DEFAULT_LIMITS
from vlm_adapters.reading import read_at_most

CARD_FILE, PAGE_FILE = "card.json", "card.md"
"""What `adapters evaluate` writes: numbers for programs, and a page for people."""

_TASK = "image-segmentation"
"""The hub's name for what gives masks."""


class _Number(BaseModel):
    group: str
    phrases: int
    masks: str
    metric: str
    value: float | None


class _Fingerprint(BaseModel):
    data: str
    protocol: str
    digests: dict[str, str]


class _Card(BaseModel):
    """What is read of `card.json`, which holds more."""

    numbers: list[_Number]
    fingerprint: _Fingerprint


@dataclass(frozen=True)
class Measured:
    """An evaluation of a decoder.

    Attributes:
        card: Its numbers.
        page: The evaluation card, in Markdown.
    """

    card: _Card
    page: str

    @classmethod
    def read(cls, folder: Path, config: DecoderConfig) -> Self:
        """Read an evaluation's folder.

        Args:
            folder: Written by `adapters evaluate`.
            config: The config of the decoder, with the digests of its weights.

        Raises:
            CheckpointError: The folder holds no evaluation.
            OptionError: It is that of another decoder.
        """
        try:
            content = read_at_most(folder / CARD_FILE, DEFAULT_LIMITS.max_config_bytes)
            card = _Card.model_validate_json(content)
            page = read_at_most(folder / PAGE_FILE, DEFAULT_LIMITS.max_config_bytes).decode()
        except (OSError, ValueError) as error:
            why = first_mistake(error) if isinstance(error, ValidationError) else error
            raise CheckpointError(
                f"{folder} holds no evaluation that can be read: {why}. Give a folder that `adapters evaluate` wrote."
            ) from error
        for name, digest in config.sha256.items():
            found = card.fingerprint.digests.get(f"decoder/{name}")
            if found != digest:
                raise OptionError(
                    f"The evaluation in {folder} is of another decoder: the SHA-256 of its {name} is {found}, and that "
                    f"of the decoder given is {digest}. Evaluate the decoder that you push."
                )
        return cls(card, page)

    def results(self) -> Iterator[EvalResult]:
        """The numbers of all phrases together, as the hub shows them."""
        of = self.card.fingerprint
        for number in self.card.numbers:
            if number.group == "all" and number.value is not None:
                yield EvalResult(
                    task_type=_TASK,
                    dataset_type=of.data,
                    dataset_name=of.data,
                    dataset_config=of.protocol,
                    metric_type=number.metric,
                    metric_name=f"{number.metric} ({number.masks})",
                    metric_value=round(number.value, 4),
                )


def model_card(
    config: DecoderConfig,
    repo_id: str,
    measured: Measured | None = None,
    license: str | None = None,  # noqa: A002 - huggingface_hub's name
) -> ModelCard:
    """Write the card of a decoder.

    Args:
        config: The decoder's config, with the digests of its weights.
        repo_id: Its hub id.
        measured: What was measured; None says so.
        license: Identifier of its licence; None names none.
    """
    backbone = config.backbone
    data = ModelCardData(
        license=license,
        library_name="vlm-adapters",
        pipeline_tag=_TASK,
        tags=["vlm-adapters", "visual-grounding"],
        base_model=None if backbone.checkpoint in embedded_checkpoints() else backbone.checkpoint,
        model_name=repo_id,
        eval_results=list(measured.results()) if measured else None,
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{_body(config, repo_id, measured)}")


def _body(config: DecoderConfig, repo_id: str, measured: Measured | None) -> str:
    backbone, is_embedded = config.backbone, config.backbone.checkpoint in embedded_checkpoints()
    sam = ', sam="sam_checkpoint.pth"' if config.refiner else ""
    refiner = f"Segment Anything, {config.refiner.image_encoder}: give its checkpoint" if config.refiner else "none"
    revision = f", revision `{backbone.revision}`" if backbone.revision else ""
    package = f" of the package `{config.plugin}`" if config.plugin else ""
    facts = [
        ("backbone", f"`{backbone.checkpoint}`, frozen{revision}"),
        ("adapter", f"`{backbone.model_type}`{package}"),
        ("maps per phrase", str(config.unet.channels)),
        ("refiner", refiner),
        ("says whether a phrase is there", "yes, learned and calibrated" if config.presence else "not learned"),
        *((f"SHA-256 of `{name}`", f"`{digest}`") for name, digest in config.sha256.items()),
    ]
    origin = "comes with vlm-adapters" if is_embedded else "is loaded from its own"
    return "\n".join(
        [
            f"# {repo_id}",
            "",
            (
                f"A mask decoder over the frozen vision-language model `{backbone.checkpoint}`: it turns the attention "
                "that the words of a sentence pay to an image into a mask for every phrase. The model itself is not in "
                f"this repository: it {origin}."
            ),
            "",
            "```python",
            "from vlm_adapters import GroundedVLM",
            "",
            f'vlm = GroundedVLM.from_pretrained("{repo_id}"{sam})',
            'grounding = vlm.ground("image.jpg", "a cat on a red sofa", ["a cat", "a red sofa"])',
            "```",
            "",
            "| | |",
            "| --- | --- |",
            *(f"| {name} | {value} |" for name, value in facts),
            "",
            _evaluation(measured),
        ]
    )


def _evaluation(measured: Measured | None) -> str:
    if measured is None:
        return "## Evaluation\n\nNo evaluation was given: how good its masks are is not known.\n"
    return re.sub(r"^(#+ )", r"#\1", measured.page, flags=re.MULTILINE)
