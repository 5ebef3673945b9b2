"""What the commands that take many images share."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlm_adapters.cli.arguments import phrases_of
from vlm_adapters.cli.printing import line, print_json, working
from vlm_adapters.cli.progress import ShareBar
from vlm_adapters.errors import OptionError
from vlm_adapters.limits import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlm_adapters.bulk import BulkIndex, PromptSource, Task

BatchSizeOption = Annotated[
    int, typer.Option("--batch-size", "-b", help="Of many images, how many run at once.", min=1)
]
ShardSizeOption = Annotated[
    int, typer.Option("--shard-size", help="Of many images, how many are in a file, which a kill may cost.", min=1)
]
ThreadsOption = Annotated[
    int, typer.Option("--threads", help="Threads of every process on a CPU: they may change the rounding.", min=1)
]

_MOST_SHOWN = 5
_DATA_SET = re.compile(r"[a-z_]+:[a-z_]+=")


@dataclass(frozen=True)
class ManyImages:
    """A run over many images.

    Attributes:
        source: The prompts.
        out: Folder of the results.
        batch_size: How many run at once.
        shard_size: How many are in a file.
        threads: Threads of torch on a CPU.
    """

    source: PromptSource
    out: Path
    batch_size: int
    shard_size: int
    threads: int

    def run(self, make_task: Callable[[str], Task], device: str, *, as_json: bool) -> None:
        """Do a task with all images, and print how many there were and which failed.

        Args:
            make_task: Makes the task for a device.
            device: Device that was asked for; each of several processes has its own.
            as_json: Whether to print JSON.
        """
        from vlm_adapters.bulk import BulkSettings, run_bulk  # noqa: PLC0415 - torch
        from vlm_adapters.data.locks import locked_folder  # noqa: PLC0415
        from vlm_adapters.evaluation.process import Process  # noqa: PLC0415

        process = Process.this(device)
        settings = BulkSettings(self.shard_size, self.batch_size, self.threads)
        task = make_task(process.device)
        with locked_folder(self.out) if process.is_first else nullcontext():
            with working(f"Loading {task.model} ..."):
                task.adapter  # noqa: B018 - it is loaded now
            with ShareBar(process, "images") as bar:
                index = run_bulk(task, self.source, self.out, settings, process=process, report=bar.show)
            process.finish()
        if process.is_first:
            self._print(index, as_json=as_json)

    def _print(self, index: BulkIndex, *, as_json: bool) -> None:
        failed = [entry.model_dump() for entry in index.failed]
        if as_json:
            print_json({"folder": str(self.out), "items": index.items, "bytes": index.bytes, "failed": failed})
            return
        line(f"{self.out}: images {index.items:,}, failed {len(failed):,}, bytes {index.bytes:,}")
        for entry in index.failed[:_MOST_SHOWN]:
            line(f"  {shown(entry.id)}: {entry.message}")
        if len(failed) > _MOST_SHOWN:
            line(f"  and {len(failed) - _MOST_SHOWN:,} more, in {self.out / 'index.json'}")


def is_of_many(source: str) -> bool:
    """Whether an argument names many images: a folder, a JSONL or YAML file, or a kind of data set with its keys."""
    is_listed = source.endswith((".jsonl", ".yaml", ".yml")) or _DATA_SET.match(source)
    return bool(is_listed) or os.path.isdir(source)  # noqa: PTH112 - `Path.is_dir` raises where a name is too long


def check_for_many(source: PromptSource, ask: str | None, answer: Path | None) -> None:
    """Check that many images have something to look for, and no option that is for one image.

    Raises:
        OptionError: They have not.
    """
    if ask is not None or answer is not None:
        raise OptionError(
            "--ask and --answer are for one image. Give a JSONL file with ask, text and ids in its lines."
        )
    if not source.has_text:
        raise OptionError(f"There is no text for the images in {source.source}. Give TEXT.")


def prompts_of(source: str, text: str | None, phrase: Sequence[str] | None, span: Sequence[str] | None) -> PromptSource:
    """Open the prompts that a user named, before a model is loaded: mistakes show at once.

    Raises:
        OptionError: Phrases are given without a text.
    """
    from vlm_adapters.bulk import open_prompts  # noqa: PLC0415 - torch

    if text is None and (phrase or span):
        raise OptionError("There are phrases without TEXT, which contains them. Give TEXT.")
    return open_prompts(source, text, phrases_of(text, phrase, span) if text is not None else None)
