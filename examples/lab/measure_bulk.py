"""Extract from 1,000 images with one process, with two, and with two of which one is killed; compare every byte.

    python examples/ray_many_images.py --json ray.json
    python examples/lab/measure_bulk.py [--images 1000] [--ray ray.json] [--report FILE]

Processes are started as `torchrun` starts them. The killed run is started again with one process. Times are of the
whole command, the start of Python and the loading of the model included.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from report import write_report

from vlm_adapters import open_dataset
from vlm_adapters.bulk import BulkIndex, read_results

SHARD_SIZE = 32


def write_images(folder: Path, count: int) -> None:
    """Write scenes, and one image that is damaged."""
    folder.mkdir()
    for index, scene in enumerate(open_dataset(f"scenes:count={count - 1},seed=4")):
        scene.image.save(folder / f"{index:05d}.png", compress_level=1)
    (folder / "damaged.png").write_bytes(b"not an image")


def start(images: Path, out: Path, model: str, count: int) -> list[subprocess.Popen[bytes]]:
    """Start the processes of a run."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    options = ["--model", model, "--layers=-1", f"--shard-size={SHARD_SIZE}", "--out", str(out)]
    return [
        subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-m", "vlm_adapters", "extract", str(images), "a red circle", *options],
            env={**os.environ, **place, "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(count)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in range(count)
    ]


def timed(images: Path, out: Path, model: str, count: int) -> float:
    """Run to the end; gives the seconds that it took."""
    began = time.monotonic()
    for process in start(images, out, model, count):
        if process.wait():
            raise SystemExit(f"A process ended with {process.returncode}.")
    return round(time.monotonic() - began, 1)


def killed(images: Path, out: Path, model: str, shards: int) -> int:
    """Kill the second of two processes when half of the shards are there; gives how many were there at the end."""
    processes = start(images, out, model, 2)
    while len(list(out.glob("shard-*.json"))) < shards // 2:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()
    return len(list(out.glob("shard-*.json")))


def digests(folder: Path) -> dict[str, str]:
    """The digests of the files in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def measure(images: Path, folder: Path, model: str) -> dict[str, object]:
    """Run in all ways, and compare."""
    ways = {"one process": 1, "two processes": 2}
    seconds = {way: timed(images, folder / way, model, count) for way, count in ways.items()}
    index = BulkIndex.read(folder / "one process")
    there = killed(images, folder / "killed", model, len(index.manifests))
    seconds["one process, after the kill"] = timed(images, folder / "killed", model, 1)
    expected = digests(folder / "one process")
    return {
        "images": index.items,
        "results": sum(1 for _ in read_results(folder / "killed")),
        "failed": len(index.failed),
        "shards": len(index.manifests),
        "shards when it was killed": there,
        "seconds": seconds,
        "equal bytes": {way: digests(folder / way) == expected for way in ("two processes", "killed")},
    }


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--model", default="tiny-llava")
    parser.add_argument("--ray", type=Path, help="what examples/ray_many_images.py wrote")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        images = Path(name) / "images"
        write_images(images, arguments.images)
        numbers = {"model": arguments.model, **measure(images, Path(name), arguments.model)}
    if arguments.ray:
        numbers["ray"] = json.loads(arguments.ray.read_text(encoding="utf-8"))
    for key, value in numbers.items():
        print(f"{key}: {value}")
    if arguments.report:
        write_report(arguments.report, numbers)


if __name__ == "__main__":
    main()
