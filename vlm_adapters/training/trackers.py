"""Trackers of experiments, by accelerate: where the numbers of a run are sent, beside its log."""

from __future__ import annotations

import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vlm_adapters.data.files import whole_file
from vlm_adapters.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Mapping

Tracker = Literal["tensorboard", "wandb", "trackio", "none"]
"""Names of the trackers: those of accelerate that are known to continue a run, and none."""

PROJECT = "vlm-adapters"
"""Name of the project in which a tracker keeps runs."""

_ID_FILE = "tracker_id"


class Tracked(Protocol):
    """What a log writes to; a `GeneralTracker` of accelerate is one."""

    def log(self, values: dict[str, Any], step: int | None = None, **options: Any) -> None:
        """Send the numbers of a step."""

    def finish(self) -> None:
        """Send what is left."""


def check_tracker(name: Tracker) -> None:
    """Check that the package of a tracker is installed.

    Raises:
        RecipeError: It is not.
    """
    if name in ("wandb", "trackio") and find_spec(name) is None:
        raise RecipeError(f"tracker={name} needs a package: pip install {name}. Or take tracker=tensorboard, or none.")


def start_tracker(name: Tracker, out: Path, config: Mapping[str, Any]) -> Tracked:
    """Start a tracker of accelerate, or continue the run that it began for the same folder.

    Args:
        name: `wandb` or `trackio`.
        out: Folder of the run; its name is that of the run.
        config: The recipe, which the tracker shows with the run.

    Raises:
        RecipeError: The package of the tracker is not installed.
    """
    from accelerate import Accelerator  # noqa: PLC0415 - no other tracker needs it

    check_tracker(name)
    options: dict[str, dict[str, str]] = {
        "wandb": {"id": _id_of(out), "name": out.resolve().name, "dir": str(out)},
        "trackio": {"name": f"{out.resolve().name}-{_id_of(out)}"},
    }
    accelerator = Accelerator(log_with=name)
    accelerator.init_trackers(PROJECT, dict(config), {name: {**options.get(name, {}), "resume": "allow"}})
    tracker: Tracked = accelerator.get_tracker(name)
    return tracker


def _id_of(out: Path) -> str:
    """The id by which a tracker finds the run of a folder again."""
    path = out / _ID_FILE
    if not path.is_file():
        with whole_file(path) as temporary:
            temporary.write_text(secrets.token_hex(4), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
