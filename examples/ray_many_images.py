"""Extract from 1,000 images with Ray Data, while one of its actors is killed: no image is lost, and no byte differs.

    pip install "vlm-adapters[ray]"
    python examples/ray_many_images.py [--images 1000] [--actors 2] [--model tiny-llava] [--json FILE]

First the callable `Extract`, which takes and gives batches of columns, as any pipeline of Ray Data has them. Then
`ShardWorker`, which computes shards of a run by their numbers: whoever hands them out, in whatever order, the files are
those that `adapters extract` writes in one process, with which they are compared. In both, an actor is killed by
SIGKILL while it works; Ray starts another one and gives it the work again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray

from vlm_adapters import GridRequest, open_dataset
from vlm_adapters.bulk import BulkRun, BulkSettings, Extract, ShardWorker, open_prompts, run_bulk

TEXT = "a red circle"


def write_images(folder: Path, count: int) -> None:
    """Write scenes, and one image that is damaged."""
    folder.mkdir()
    for index, scene in enumerate(open_dataset(f"scenes:count={count - 1},seed=4")):
        scene.image.save(folder / f"{index:05d}.png", compress_level=1)
    (folder / "damaged.png").write_bytes(b"not an image")


def note_process(notes: Path) -> None:
    """Note the process of an actor, so that it can be found and killed."""
    (notes / str(os.getpid())).touch()


class NotedExtract(Extract):
    """`Extract` that notes its process."""

    def __init__(self, notes: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.notes = notes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Work on a batch."""
        found = super().__call__(batch)
        note_process(self.notes)
        return found


class NotedWorker(ShardWorker):
    """`ShardWorker` that notes its process."""

    def __init__(self, notes: Path, run: BulkRun) -> None:
        super().__init__(run)
        self.notes = notes

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Compute shards."""
        found = super().__call__(batch)
        note_process(self.notes)
        return found


def kill_one(notes: Path) -> threading.Thread:
    """Kill an actor as soon as it has done something; gives the thread that does."""
    notes.mkdir()

    def kill() -> None:
        while not (noted := sorted(notes.iterdir())):
            time.sleep(0.02)
        os.kill(int(noted[0].name), signal.SIGKILL)

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    return thread


def columns(images: Path, notes: Path, model: str, actors: int) -> dict[str, object]:
    """Extract from batches of columns."""
    paths = sorted(str(path) for path in images.iterdir())
    killer, began = kill_one(notes), time.monotonic()
    found = ray.data.from_items([{"image": path, "id": Path(path).name} for path in paths]).map_batches(
        NotedExtract,
        fn_constructor_args=(notes, model),
        fn_constructor_kwargs={"request": GridRequest(layers=[-1]), "text": TEXT},
        batch_size=8,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    rows = found.take_all()
    seconds = time.monotonic() - began
    killer.join()
    ids = [row["id"] for row in rows]
    return {
        "images": len(paths),
        "rows": len(rows),
        "distinct": len(set(ids)),
        "errors": sum(bool(row["error"]) for row in rows),
        "maps": sum(np.asarray(row["fine.attention"]).size > 0 for row in rows),
        "processes": len(list(notes.iterdir())),
        "seconds": round(seconds, 1),
    }


def shards(images: Path, folder: Path, notes: Path, model: str, actors: int) -> dict[str, object]:
    """Compute shards in actors, and compare them with those of one process."""
    task, source = Extract(model, request=GridRequest(layers=[-1])), open_prompts(str(images), TEXT)
    settings = BulkSettings(shard_size=32)
    run_bulk(task, source, folder / "one process", settings)
    run = BulkRun.of(task, source, folder / "ray", settings)
    killer, began = kill_one(notes), time.monotonic()
    with run.held():
        numbers = ray.data.from_items([{"shard": number} for number in run.missing()])
        done = numbers.map_batches(
            NotedWorker,
            fn_constructor_args=(notes, run),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors),
        ).take_all()
        index = run.finish()
    seconds = time.monotonic() - began
    killer.join()
    return {
        "images": len(source),
        "rows": sum(row["items"] for row in done),
        "errors": len(index.failed),
        "shards": len(done),
        "processes": len(list(notes.iterdir())),
        "equal to one process": digests(folder / "ray") == digests(folder / "one process"),
        "seconds": round(seconds, 1),
    }


def digests(folder: Path) -> dict[str, str]:
    """The digests of the files in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def main() -> None:
    """Read the command line, run both, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--json", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    ray.init(num_cpus=arguments.actors + 1, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_images(folder / "images", arguments.images)
        found = {
            "columns": columns(folder / "images", folder / "noted 1", arguments.model, arguments.actors),
            "shards": shards(folder / "images", folder, folder / "noted 2", arguments.model, arguments.actors),
        }
    ray.shutdown()
    for way, numbers in found.items():
        print(f"{way}: {', '.join(f'{key} {value}' for key, value in numbers.items())}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
