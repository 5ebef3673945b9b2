"""Checkpoints of a run: a decoder's folder each, with all that it takes to resume as if nothing had happened."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from vlm_adapters.backbone.protocol import BackboneInfo
from vlm_adapters.data.files import output_errors, whole_file, whole_folder
from vlm_adapters.data.locks import IS_WINDOWS, temporary_beside
from vlm_adapters.data.sealed import sealed, sha256_of_file, unsealed
from vlm_adapters.decoder.checkpoint import CONFIG_FILE, DecoderCheckpoint, write_calibration
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.errors import OutputError, RecipeError
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
        files: Digests of the checkpoint's other files, by their names.
    """

    model_config = ConfigDict(extra="forbid")

    recipe: Recipe
    total_steps: int
    step: int = 0
    validated_step: int | None = None
    best_step: int | None = None
    best_mean_iou: float | None = None
    files: dict[str, str] = {}

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
            return cls.model_validate(unsealed((folder / STATE_FILE).read_bytes()))
        except (OSError, ValueError) as error:
            raise _not_resumed(folder, f"{folder / STATE_FILE} cannot be read: {str(error).splitlines()[0]}") from error

    def write(self, folder: Path) -> None:
        """Write the state into the folder of its checkpoint."""
        with whole_file(folder / STATE_FILE) as temporary:
            temporary.write_bytes(sealed(self.model_dump(mode="json"), indent=2))

    def check_files(self, folder: Path) -> None:
        """Check that the files of a checkpoint are those that were written with this state.

        Raises:
            RecipeError: One was changed, or is gone.
        """
        for name, digest in self.files.items():
            path = folder / name
            if not path.is_file() or sha256_of_file(path) != digest:
                what = "was changed after it was written: its sha256 differs" if path.is_file() else "is missing"
                raise _not_resumed(folder, f"{path} {what}")


def _not_resumed(folder: Path, reason: str) -> RecipeError:
    return RecipeError(
        f"The run cannot be resumed: {reason}. Delete {folder} to resume from the checkpoint before it, or give "
        "another --out."
    )


def checkpoints(out: Path) -> list[Path]:
    """The checkpoints of a run, oldest first; every one is complete."""
    found = [path for path in out.glob("step-*") if re.fullmatch(r"step-\d{8,}", path.name) and path.is_dir()]
    return sorted(found, key=_step_of)


def save_checkpoint(
    out: Path,
    decoder: MaskDecoder,
    optimizer: torch.optim.Optimizer,
    state: RunState,
    info: BackboneInfo,
) -> None:
    """Write a checkpoint. Where the step has one already, which is then validated, state and calibration are written.

    Args:
        out: Folder of the run.
        decoder: The decoder.
        optimizer: The decoder's optimizer.
        state: Where the run is; it takes the digests of the files.
        info: Description of the backbone.
    """
    folder = out / _name(state.step)
    if not folder.is_dir():
        with whole_folder(folder) as temporary:
            decoder.save(temporary, info)
            with whole_file(temporary / OPTIMIZER_FILE) as file:
                file.write_bytes(save(_moments(decoder, optimizer)))
            state.files = {path.name: sha256_of_file(path) for path in sorted(temporary.iterdir())}
            state.write(temporary)
        return
    if decoder.presence:
        # its digest is away while the config is written, so that a kill between the two leaves a whole checkpoint
        before = RunState.read(folder)
        before.files.pop(CONFIG_FILE, None)
        before.write(folder)
        write_calibration(folder, decoder.presence)
        state.files = dict(sorted({**state.files, CONFIG_FILE: sha256_of_file(folder / CONFIG_FILE)}.items()))
    state.write(folder)


def keep_checkpoints(out: Path, state: RunState, is_due: Callable[[int], bool]) -> None:
    """Link `best` to the best checkpoint, and delete those that the recipe does not keep.

    One that was written because the run was stopped goes when the next due one is there.

    Args:
        out: Folder of the run.
        state: Where the run is.
        is_due: Whether a checkpoint is due at a step.
    """
    best = _name(state.step if state.best_step is None else state.best_step)
    _link(out / BEST, best)
    found = checkpoints(out)
    due = [path for path in found if is_due(_step_of(path))]
    kept = {best, _name(state.step), *(path.name for path in due[-state.recipe.keep_checkpoints :])}
    for old in found:
        if old.name not in kept:
            with output_errors(old), temporary_beside(old) as doomed:
                old.replace(doomed)  # a kill while it is deleted leaves nothing that looks complete


def load_checkpoint(folder: Path, decoder: MaskDecoder, optimizer: torch.optim.Optimizer) -> None:
    """Give a decoder and its optimizer the tensors of a checkpoint.

    Raises:
        RecipeError: They do not fit, or are not those that were written.
    """
    RunState.read(folder).check_files(folder)
    try:
        checkpoint = DecoderCheckpoint.read(folder)
        decoder.unet.load_state_dict(dict(checkpoint.unet))
        if decoder.refiner:
            decoder.refiner.load_state_dict(dict(checkpoint.refiner), strict=False)  # the image encoder is not kept
        if decoder.presence and checkpoint.config.presence:
            decoder.presence.load_state_dict(dict(checkpoint.presence))
            decoder.presence.calibration = checkpoint.config.presence.calibration
        moments = load_file(folder / OPTIMIZER_FILE)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _not_resumed(folder, " ".join(str(error).split())[:300]) from error
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
    """Link to a sibling, in one step; a copy stands where the system makes no links, such as Windows by default."""
    with output_errors(link), temporary_beside(link) as temporary:
        try:
            temporary.symlink_to(target, target_is_directory=True)
        except (OSError, NotImplementedError):
            shutil.copytree(link.with_name(target), temporary)
        is_link = link.is_symlink()
        if link.is_dir() and not is_link and not (link / STATE_FILE).is_file():
            raise OutputError(f"{link} is not of this run, which needs the name. Rename it, and start the run again.")
        if link.exists() and (IS_WINDOWS or not is_link):
            with temporary_beside(link) as old:  # a folder, or on Windows a link to one, is not replaced in one step
                link.replace(old)
                temporary.replace(link)
        else:
            temporary.replace(link)


def _name(step: int) -> str:
    return f"step-{step:08d}"


def _step_of(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))
