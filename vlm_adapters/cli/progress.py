"""Progress of long work, on stderr: caches that are built, steps that are taken, samples that are evaluated."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from vlm_adapters.cli.printing import console, line
from vlm_adapters.limits import plain

if TYPE_CHECKING:
    from vlm_adapters.evaluation.process import Process
    from vlm_adapters.progress import Progress


class ProgressBars:
    """A bar per cache and one for the steps; lines now and then where stderr is not a terminal."""

    def __init__(self) -> None:
        self._console = console(err=True)
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._shown: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()

    def built(self, source: str, progress: Progress) -> None:
        """Show how far a cache is."""
        self._show(f"cache of {source}", progress)

    def stepped(self, progress: Progress) -> None:
        """Show what a step did."""
        self._show("training", progress)

    def _show(self, name: str, progress: Progress) -> None:
        done, total, unit, status = progress.done, progress.total, progress.unit, progress.status
        if name not in self._tasks:
            self._tasks[name] = self._bars.add_task(plain(name), total=total, status=status)
        task = self._tasks[name]
        speed = self._bars.tasks[self._bars.task_ids.index(task)].speed
        pace = f"{status}, {speed:.1f} {unit}/s" if speed else status
        self._bars.update(task, completed=done, status=pace)
        tenth = 10 * done // max(total, 1)
        if not self._console.is_terminal and tenth > self._shown.get(name, -1):
            self._shown[name] = tenth
            line(f"{name}: {done} of {total} {unit}, {pace}", err=True)


class ShareBar:
    """How far the first process is with its share; a line now and then where nobody watches.

    Args:
        process: The process of this command.
        unit: What is counted.
    """

    def __init__(self, process: Process, unit: str = "samples") -> None:
        self._console = console(err=True, quiet=process.index > 0)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        self._bars = Bars(*columns, console=self._console)
        name = unit if process.count == 1 else f"{unit} of process 1 of {process.count}"
        self._task = self._bars.add_task(name, total=None)
        self._printed_tenth: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._printed_tenth is not None:
            self._bars.stop()

    def show(self, progress: Progress) -> None:
        """Show how many are done."""
        done, total = progress.done, progress.total
        if self._printed_tenth is None:
            self._bars.start()
            self._bars.reset(self._task, total=total, completed=done)
            self._printed_tenth = -1
            return
        self._bars.update(self._task, completed=done)
        tenth = 10 * done // max(total, 1)
        if not self._console.is_terminal and tenth > self._printed_tenth:
            self._printed_tenth = tenth
            self._console.print(self._bars.get_renderable())


class _Rate(ProgressColumn):
    """Samples per second."""

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} a second, left:")
