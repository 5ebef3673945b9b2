"""Progress of long work, on stderr: caches that are built, steps that are taken."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from vlm_adapters.training.cache.build import BuildProgress
    from vlm_adapters.training.log import Step


class ProgressBars:
    """A bar per cache and one for the steps; lines now and then where stderr is not a terminal.

    Args:
        console: Where the bars are shown.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._progress.stop()

    def built(self, source: str, progress: BuildProgress) -> None:
        """Show how far a cache is."""
        self._show(f"cache of {source}", progress.samples, progress.total, decimal(progress.bytes), unit="samples")

    def stepped(self, step: Step) -> None:
        """Show what a step did."""
        self._show("training", step.number, step.total, f"loss {step.loss:.3f}", unit="steps")

    def _show(self, name: str, done: int, total: int, status: str, unit: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total, status=status)
        task = self._tasks[name]
        speed = self._progress.tasks[self._progress.task_ids.index(task)].speed
        pace = f"{status}, {speed:.1f} {unit}/s" if speed else status
        self._progress.update(task, completed=done, status=pace)
        tenth = 10 * done // max(total, 1)
        if not self._console.is_terminal and tenth > self._shown.get(name, -1):
            self._shown[name] = tenth
            self._console.print(f"{name}: {done} of {total} {unit}, {pace}", highlight=False, soft_wrap=True)
