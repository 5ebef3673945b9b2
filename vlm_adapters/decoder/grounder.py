"""An adapter and a decoder: from a picture and a sentence to a mask for every phrase."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional

from vlm_adapters.backbone import BackboneAdapter, Grids, place_map
from vlm_adapters.decoder.saved import SavedDecoder
from vlm_adapters.decoder.unet import UNet, UNetConfig, normalise
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, DecoderError
from vlm_adapters.files import whole_file, write_json
from vlm_adapters.images import ImageSource
from vlm_adapters.loading import load_adapter
from vlm_adapters.prompt import Phrase, PhraseLike, Prompt
from vlm_adapters.request import GridRequest

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
EMBEDDED_FOLDER = "decoder"
"""Where a backbone's folder keeps the decoder that was trained on it."""

Method = Literal["decoder", "box", "heads"]
"""What finds masks: a trained decoder, the model's own box in words, or the attention of a few heads."""

AGREEING_HEADS = 4
"""How many heads the map of a grounded phrase shows: the mean over all is led by those that look at everything."""


@dataclass(frozen=True)
class GroundedPhrase:
    """Where one phrase is in the picture.

    Attributes:
        phrase: Its words and their place in the text.
        mask: `(H, W)` bool at the picture's size; all false where nothing was found.
        box: `(left, top, right, bottom)` in pixels around the mask, right and bottom excluded; None if it is empty.
        score: Mean probability of the mask's pixels, in [0, 1]; 0 if it is empty. It tells how sharp the mask is, not
            whether the phrase is in the picture. By heads: the mean height of the map; by boxes: 1.
        map: `(H, W)` float32 in [0, 1], 1 at its peak: where the heads look that agree best with the mask (see
            `agreeing_maps`), or those of a profile, or the boxes.
    """

    phrase: Phrase
    mask: NDArray[np.bool_] = field(repr=False)
    box: tuple[int, int, int, int] | None
    score: float
    map: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class Grounding:
    """A sentence grounded in a picture.

    Attributes:
        image: The upright RGB picture.
        text: The sentence.
        phrases: Its phrases, each with mask, box, score and map, in the order asked.
        method: What found them.
    """

    image: Image.Image
    text: str
    phrases: tuple[GroundedPhrase, ...]
    method: Method = "decoder"


class Grounder(ABC):
    """Anything that finds the phrases of a sentence in a picture."""

    @property
    @abstractmethod
    def told(self) -> str:
        """What finds the masks, for people: the method and what it rests on."""

    def ground(self, image: ImageSource, text: str, phrases: Sequence[PhraseLike]) -> Grounding:
        """Find the phrases of a sentence in a picture.

        Args:
            image: Any form of picture that `load_image` takes.
            text: The sentence.
            phrases: Strings that occur once in it, or spans `(start, end)` of its characters.

        Raises:
            ImageError: The picture cannot be used.
            PromptError: The text or a phrase cannot be used.
            DecoderError: What reads the backbone's maps does not fit them.
        """
        return self.ground_all([Prompt.describe(image, text, phrases)])[0]

    @abstractmethod
    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        """Ground a batch of prompts, each in its first picture."""


class GroundedVLM(Grounder):
    """A frozen backbone and the decoder that reads its attention.

    Attributes:
        adapter: Gives the grids.
        decoder: U-Net over the channels of `request`.
        request: Layers and heads that the decoder reads.
    """

    def __init__(self, adapter: BackboneAdapter, decoder: UNet, request: GridRequest | None = None) -> None:
        self.adapter = adapter
        self.decoder = decoder
        self.request = request or GridRequest()
        if self.request.reduce == "none":
            raise DecoderError('A decoder reads one map per phrase, and reduce="none" gives one per token. Use "mean".')

    @classmethod
    def untrained(cls, adapter: BackboneAdapter, *, base_width: int = 64) -> Self:
        """Give an adapter a decoder of its size, with random weights, to be trained.

        Args:
            adapter: Its `info` says how many channels the decoder reads.
            base_width: Channels of the decoder's first stage; 64 is the paper's.
        """
        return cls(adapter, UNet(UNetConfig(channels=adapter.info.channels, base_width=base_width)))

    @property
    def told(self) -> str:
        """See `Grounder`."""
        return f"decoder, trained on {self.adapter.info.model_type}"

    def ground_all(self, prompts: Sequence[Prompt]) -> list[Grounding]:
        """Ground a batch of prompts, each in its first picture."""
        extracted = self.adapter.extract(self.adapter.preprocess(prompts), self.request)
        with torch.no_grad():
            return [self._grounding(prompt, grids) for prompt, grids in zip(prompts, extracted, strict=True)]

    def _grounding(self, prompt: Prompt, extracted: Sequence[Grids]) -> Grounding:
        picture = prompt.pictures[0]
        size = picture.height, picture.width
        maps, box = stack_channels([grids for grids in extracted if grids.grid.picture == 0])
        maps = maps.to(next(self.decoder.parameters()).device)
        logits = self.decoder(maps)
        probabilities = place_map(logits, box, size, outside=float("-inf")).sigmoid().cpu().numpy()
        heat = place_map(agreeing_maps(maps, logits.sigmoid()), box, size).cpu().numpy()
        return Grounding(
            picture,
            prompt.text,
            tuple(
                grounded_phrase(phrase, probability, attention)
                for phrase, probability, attention in zip(prompt.phrases, probabilities, heat, strict=True)
            ),
        )

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the decoder (`model.safetensors`) and `config.json`, which names the backbone and its revision."""
        saved = SavedDecoder.of(self.adapter.info, self.decoder.config, self.request)
        with whole_file(Path(folder, WEIGHTS_FILE)) as temporary:
            # save_file would write a file that its owner alone can read
            temporary.write_bytes(
                save({name: tensor.contiguous() for name, tensor in self.decoder.state_dict().items()})
            )
        write_json(Path(folder, CONFIG_FILE), saved.model_dump())

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | os.PathLike[str], *, adapter: BackboneAdapter | None = None, **options: Any
    ) -> Self:
        """Load a decoder and, unless it is given, the backbone that it was trained on.

        Args:
            name_or_path: A folder written by `save_pretrained`, or a backbone's folder or embedded backbone that has
                such a folder `decoder` in it.
            adapter: A backbone that is loaded already.
            options: For `load_adapter`: device, dtype, the family's own.

        Raises:
            CheckpointError: The folder holds no decoder.
            DecoderError: The decoder does not fit the backbone.
        """
        folder = embedded_checkpoints().get(os.fspath(name_or_path), Path(name_or_path))
        if (folder / EMBEDDED_FOLDER / CONFIG_FILE).is_file():
            folder = folder / EMBEDDED_FOLDER
        saved, weights = _read(folder)
        backbone = saved.backbone
        if adapter is None:
            adapter = load_adapter(
                backbone.checkpoint, **{"revision": backbone.revision, **backbone.options, **options}
            )
        if adapter.info.model_type != backbone.model_type:
            raise DecoderError(
                f"The decoder in {folder} was trained on {backbone.model_type} ({backbone.checkpoint}), and "
                f"the backbone given is {adapter.info.model_type} ({adapter.info.checkpoint}). Give its own."
            )
        decoder = UNet(saved.decoder)
        try:
            decoder.load_state_dict(weights)
        except RuntimeError as error:
            told = " ".join(str(error).split())  # torch tells every tensor on a line of its own
            told = told if len(told) <= 300 else told[:300] + "..."
            raise DecoderError(f"The weights in {folder} do not fit its config: {told}") from error
        place = getattr(getattr(adapter, "model", None), "device", "cpu")
        return cls(adapter, decoder.to(place).eval(), saved.grid_request())


def stack_channels(extracted: Sequence[Grids]) -> tuple[Tensor, tuple[float, float, float, float]]:
    """Stack the maps of all grids of one picture as channels over its last, finest grid.

    The other grids' maps are resampled bilinearly onto the cells of the finest, by where both stand in the picture.

    Args:
        extracted: Of one picture, in the adapter's order.

    Returns:
        `(P, C, h, w)` and the box that the finest grid covers.

    Raises:
        DecoderError: The prompt's picture has no grid.
    """
    if not extracted:
        raise DecoderError("There are no grids for the picture. Extract them with an adapter that locates its tokens.")
    finest = extracted[-1].grid
    left, top, right, bottom = finest.cell_box(0, 0)
    width, height = right - left, bottom - top
    channels = []
    for grids in extracted:
        x0, y0, x1, y1 = grids.grid.box
        in_cells = ((x0 - left) / width, (y0 - top) / height, (x1 - left) / width, (y1 - top) / height)
        same = grids.grid.box == finest.box and grids.grid.shape == finest.shape
        channels.append(grids.channels if same else place_map(grids.channels, in_cells, finest.shape))
    return torch.cat(channels, dim=1), finest.box


def agreeing_maps(maps: Tensor, probabilities: Tensor) -> Tensor:
    """One map per phrase: the mean of the few attention maps that lie most on its mask, each divided by its sum.

    Args:
        maps: `(P, C, h, w)` attention, not negative.
        probabilities: `(P, h', w')` of the mask, in [0, 1], over the same region.

    Returns:
        `(P, h, w)` float32, not negative.
    """
    shares = normalise(maps)
    pooled = functional.adaptive_avg_pool2d(probabilities.float()[:, None], (shares.shape[2], shares.shape[3]))
    agreement = (shares * pooled).sum(dim=(2, 3))
    best = agreement.topk(min(AGREEING_HEADS, shares.shape[1]), dim=1).indices
    return shares.gather(1, best[:, :, None, None].expand(-1, -1, *shares.shape[-2:])).mean(dim=1)


def grounded_phrase(
    phrase: Phrase, probability: NDArray[np.float32], attention: NDArray[np.float32], threshold: float = 0.5
) -> GroundedPhrase:
    """Turn what was found of one phrase, at the picture's size, into its mask, box, score and map.

    Args:
        phrase: What was looked for.
        probability: `(H, W)` in [0, 1].
        attention: `(H, W)`, not negative, of any scale.
        threshold: The mask is where the probability is above it, in [0, 1).
    """
    mask = probability > threshold
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    found = bool(mask.any())
    return GroundedPhrase(
        phrase=phrase,
        mask=mask,
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) if found else None,
        score=float(probability[mask].mean()) if found else 0.0,
        map=attention / max(float(attention.max()), 1e-12),
    )


def _read(folder: Path) -> tuple[SavedDecoder, dict[str, Tensor]]:
    try:
        config = SavedDecoder.read(folder / CONFIG_FILE)
        weights = load_file(folder / WEIGHTS_FILE)
    except (OSError, ValueError, SafetensorError) as error:
        with_decoder = [name for name, path in embedded_checkpoints().items() if (path / EMBEDDED_FOLDER).is_dir()]
        if not folder.is_dir():
            raise CheckpointError(
                f"There is no decoder {str(folder)!r}: no such folder, and no embedded model with a decoder "
                f"({', '.join(with_decoder) or 'none'}). Give a folder written by GroundedVLM.save_pretrained. "
                "A backbone alone has no masks; `adapters attend` shows where it looks."
            ) from error
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        raise CheckpointError(
            f"No decoder can be read from {folder}: "
            f"{'it has no ' + ' and no '.join(missing) if missing else error}. Give a folder written by "
            f"GroundedVLM.save_pretrained, or an embedded model that has one: {', '.join(with_decoder) or 'none'}."
        ) from error
    return config, weights
