"""Flip single bits in caches, checkpoints and evaluation results, and run the command that opens them next.

    python examples/lab/flipped_bits.py [--flips 30] [--report FILE]

A flip is noticed if the command ends with one error line that names the file and says how to go on. Then the time that
checking takes is measured: all shards of a cache are compared with their digests, and an epoch is trained from it.
Takes about 5 minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import tempfile
from pathlib import Path
from time import perf_counter

from report import write_report
from trials import COMMANDS, MODEL, PREPARED, prepare, run

from vlm_adapters import Recipe, train
from vlm_adapters.training import CachedSamples, Step, build_caches

KINDS = {
    "cache": ("train", ("cache/*/shard-*.safetensors", "cache/*/shard-*.json", "cache/*/index.json")),
    "checkpoint": ("train", ("run/step-00000012/*",)),
    "evaluation": ("evaluate", ("evaluation/partial_results/*.jsonl", "evaluation/records.jsonl")),
}
"""What is damaged: the command that opens it, and its files; of a run, the checkpoint that it resumes from."""

REMEDIES = ("Run `adapters cache build`", "to resume from the checkpoint before", "is computed again", "written anew")


def flip(path: Path, rng: random.Random) -> int:
    """Flip a random bit of a file, and return which."""
    data = bytearray(path.read_bytes())
    bit = rng.randrange(8 * len(data))
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return bit


def trials(kind: str, count: int, root: Path) -> list[dict[str, object]]:
    """Flip bits in copies of a folder in which a command ended, or nearly did."""
    command, patterns = KINDS[kind]
    done = root / f"done {kind}"
    done.mkdir()
    for line in ([PREPARED[command]] if command in PREPARED else []) + ([COMMANDS[command]] if kind != "cache" else []):
        ended = run(done, line)
        if ended.code:
            raise SystemExit(f"{line} failed: {ended.errors}")
    found = []
    for seed in range(count):
        rng, folder = random.Random(seed), root / "trial"  # noqa: S311 - not a secret
        shutil.copytree(done, folder, symlinks=True)
        path = rng.choice(sorted(folder.glob(patterns[seed % len(patterns)])))
        bit = flip(path, rng)
        ended = run(folder, COMMANDS[command])
        line = ended.errors.strip().splitlines()[-1] if ended.errors.strip() else ""
        noticed = ended.code == 1 and path.name in line and any(remedy in line for remedy in REMEDIES)
        name = path.relative_to(folder).as_posix()
        found.append({"file": name, "bit": bit, "noticed": noticed, "message": line.replace(str(folder), ".")})
        print(kind, json.dumps(found[-1]), flush=True)
        shutil.rmtree(folder)
    return found


def cost(root: Path) -> dict[str, float]:
    """Time of comparing all shards with their digests, against that of an epoch from the same cache."""
    changes = [f"model={MODEL}", "device=cpu", "train=scenes:count=256,seed=3", "validation=null"]
    recipe = Recipe.read("scenes", [*changes, f"cache={root / 'cost'}", "epochs=2"])
    (cache,) = build_caches(recipe)
    steps: list[Step] = []
    train(recipe, root / "cost run", report=steps.append)
    epoch = sum(step.seconds for step in steps[len(steps) // 2 :])
    times = []
    for _ in range(5):
        samples = CachedSamples(cache.folder)
        began = perf_counter()
        samples.read(range(0, len(samples), 64))
        first = perf_counter() - began
        began = perf_counter()
        samples.read(range(0, len(samples), 64))
        times.append(first - (perf_counter() - began))
    checking = sorted(times)[len(times) // 2]
    return {
        "bytes of the cache": samples.index.bytes,
        "seconds of an epoch": float(f"{epoch:.3g}"),
        "seconds of checking, once per run": float(f"{checking:.2g}"),
        "share of one epoch": float(f"{checking / epoch:.2g}"),
    }


def main() -> None:
    """Read the command line, measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flips", type=int, default=30, help="number of flipped bits")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    prepare()
    with tempfile.TemporaryDirectory() as folder:
        found = {kind: trials(kind, arguments.flips // len(KINDS), Path(folder)) for kind in KINDS}
        checking = cost(Path(folder))
    table = {
        kind: {"flipped": len(ones), "noticed": sum(bool(one["noticed"]) for one in ones)}
        for kind, ones in found.items()
    }
    for kind, row in table.items():
        print(f"{kind:11}", ", ".join(f"{name}: {value}" for name, value in row.items()))
    print(checking)
    if arguments.report:
        write_report(arguments.report, {"flips": table, "checking": checking})


if __name__ == "__main__":
    main()
