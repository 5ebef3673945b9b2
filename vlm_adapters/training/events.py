"""The events of a run for TensorBoard, which are those of one run however often it was resumed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
from torch.utils.tensorboard import SummaryWriter

_SUFFIX = ".vlm-adapters"
_FILE = re.compile(r"events\.out\.tfevents\.\d{10,}\..+\.\d+\.\d+" + re.escape(_SUFFIX))


class Events:
    """Writes events, beginning with all that was kept, at the times it was first logged, in place of older files.

    TensorBoard's own way, a mark from which older steps are void, depends on the names of the files: a process that
    starts in the same second as the one before it may come before it there.

    Args:
        folder: Folder of the events.
        kept: What was logged before and stays: numbers by name, with their `step`.
    """

    def __init__(self, folder: Path, kept: Sequence[Mapping[str, float]]) -> None:
        old = [path for path in folder.glob("events.*") if _FILE.fullmatch(path.name)]
        times = dict(time for path in sorted(old) for time in _times(path))
        self._writer = SummaryWriter(folder, purge_step=0, filename_suffix=_SUFFIX)
        for content in kept:
            step = int(content["step"])
            for name, value in content.items():
                if name != "step":
                    self._writer.add_scalar(name, value, step, walltime=times.get((name, step)))
        self._writer.flush()
        for path in old:
            with suppress(OSError):  # Windows, where a reader has it open: the new file makes its steps void
                path.unlink()

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        """Write the numbers of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def finish(self) -> None:
        """Close the file."""
        self._writer.close()


def _times(path: Path) -> Iterator[tuple[tuple[str, int], float]]:
    """When each scalar of a file was logged, up to where a kill cut it off."""
    for event in LegacyEventFileLoader(str(path)).Load():
        for value in event.summary.value:
            yield (value.tag, event.step), event.wall_time
