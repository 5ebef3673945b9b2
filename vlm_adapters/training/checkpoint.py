"""Checkpoints of a run: a decoder's folder each, with all that it takes to resume as if nothing had happened."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.data.files import whole_file, whole_folder, write_json
from vlm_adapters.decoder.checkpoint import DecoderCheckpoint
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.errors import RecipeError
from vlm_adapters.training.recipe import Recipe

OPTIMIZER_FILE = "optimizer.safetensors"
STATE_FILE = "state.json"
BEST = "best"


class RunState(BaseModel):
    """Where a run is.

    Attributes:
        recipe: The recipe that it follows.
        total_steps: Steps of the whole run.
        step: Steps done.
        validated_step: The last step that was validated; None before the first.
        best_step: The step of the best validation so far; None before the first.
        best_mean_iou: Mean IoU of that validation.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: Recipe
    total_steps: int
    step: int = 0
    validated_step: int | None = None
    best_step: int | None = None
    best_mean_iou: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.step == self.total_steps and (self.recipe.validation is None or self.validated_step == self.step)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the state of a checkpoint.

        Raises:
            RecipeError: It is not a checkpoint of a run.
        """
        try:
            return cls.model_validate_json((folder / STATE_FILE).read_bytes())
        except (OSError, ValidationError) as error:
            raise RecipeError(
                f"The run cannot be resumed: {folder / STATE_FILE} cannot be read ({str(error).splitlines()[0]}). "
                "Delete that folder to resume from the checkpoint before, or give another --out."
            ) from error


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; every one is complete."""
    return sorted(out.glob("step-*"))


def save_checkpoint(
    out: Path, decoder: MaskDecoder, optimizer: torch.optim.Optimizer, state: RunState, info: BackboneInfo
) -> None:
    """Write a checkpoint, link `best` to the best one, and delete those that the recipe does not keep.

    Where the step has a checkpoint already, which is then validated, only the state is written.

    Args:
        out: Folder of the run.
        decoder: The decoder.
        optimizer: The decoder's optimizer.
        state: Where the run is.
        info: Description of the backbone.
    """
    folder = out / _name(state.step)
    if folder.is_dir():
        write_json(folder / STATE_FILE, state.model_dump(mode="json"))
    else:
        with whole_folder(folder) as temporary:
            decoder.save(temporary, info)
            with whole_file(temporary / OPTIMIZER_FILE) as file:
                file.write_bytes(save(_moments(decoder, optimizer)))
            write_json(temporary / STATE_FILE, state.model_dump(mode="json"))
    best = _name(state.step if state.best_step is None else state.best_step)
    _link(out / BEST, best)
    for old in checkpoints(out)[: -state.recipe.keep_checkpoints]:
        if old.name != best:
            doomed = old.with_name(f".{old.name}.{os.getpid()}.tmp")
            old.rename(doomed)  # a kill while it is deleted leaves nothing that looks complete
            shutil.rmtree(doomed)


def load_checkpoint(folder: Path, decoder: MaskDecoder, optimizer: torch.optim.Optimizer) -> None:
    """Give a decoder and its optimizer the tensors of a checkpoint.

    Raises:
        RecipeError: They do not fit.
    """
    checkpoint = DecoderCheckpoint.read(folder)
    try:
        decoder.unet.load_state_dict(dict(checkpoint.unet))
        if decoder.refiner:
            decoder.refiner.load_state_dict(dict(checkpoint.refiner), strict=False)  # the image encoder is not kept
        moments = load_file(folder / OPTIMIZER_FILE)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise RecipeError(
            f"The run cannot be resumed from {folder}: {' '.join(str(error).split())[:300]}. Give another --out."
        ) from error
    names = list(decoder.trainable_parameters())
    content = optimizer.state_dict()
    content["state"] = {
        names.index(name): {key: moments[f"{key}.{name}"].clone() for key in ("step", "exp_avg", "exp_avg_sq")}
        for name in {key.partition(".")[2] for key in moments}
    }
    optimizer.load_state_dict(content)


def _moments(decoder: MaskDecoder, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{key}.{name}": tensor.detach().contiguous()
        for name, weight in decoder.trainable_parameters().items()
        for key, tensor in optimizer.state.get(weight, {}).items()
    }


def _link(link: Path, target: str) -> None:
    """Link to a sibling, in one step."""
    temporary = link.with_name(f".{link.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    temporary.replace(link)


def _name(step: int) -> str:
    return f"step-{step:08d}"
