"""Run the whole chain on a GPU against the CPU in float32, in minutes, without a network; print a table, write JSON.

    python examples/lab/gpu_check.py [--device cuda] [--sam FILE] [--out gpu_check.json] [--only PART ...]

The parts: `suite`, the conformance suite of one family per layout of image tokens; `kernels`, rows beside every kernel
that is here, against the eager one's; `chain`, the embedded backbones with their decoders and Segment Anything, against
the CPU; `train`, a decoder trained from a cache and with the backbone in the loop, and evaluated; `memory`, what rows
and hidden states add to a pass of a language model. The exit code is 1 if a bar is missed.

Without `--sam` the refiner is a small Segment Anything with random weights, so that its path runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # read when it is imported
os.environ["NVIDIA_TF32_OVERRIDE"] = (
    "0"  # else a GPU's convolutions round float32 to ten bits, in spawned processes too
)

try:
    import pydantic  # noqa: F401 - one of what a bare machine lacks; what follows needs all of them
    import torch
    from gpu_comparisons import Finding, chain, kernels, memory

    from vlm_adapters import AdapterError, list_adapters
    from vlm_adapters.registry.versions import check_transformers, describe, versions
    from vlm_adapters.testing import ALL_CHECKS, run_checks
    from vlm_adapters.testing.lookup import find_case
except ImportError as missing:
    sys.exit(
        f"error: {missing}. Carry wheels of what is missing here (pip download --no-deps NAME, then pip install "
        "--no-index): pydantic pydantic-core annotated-types typing-inspection transformers qwen-vl-utils pycocotools "
        "segment-anything accelerate typer, and vlm-adapters itself."
    )

FAMILIES = {
    "llava": "one square",
    "llava_next": "a coarse grid and tiles",
    "qwen2_5_vl": "native resolution",
    "fuyu": "native resolution without a tower",
    "deepseek_vl": "a padded square",
}
IN_BFLOAT16 = ("llava_next", "qwen2_5_vl")
STARTS_A_PROCESS = "check_spawned_process"
"""Half the time of a family on a GPU: it is run for one of them."""


@dataclass(frozen=True)
class Options:
    """What was typed."""

    device: str
    sam: str | None


def suite(options: Options) -> Iterator[Finding]:
    """The conformance suite of one family per layout in float32, of some in bfloat16."""
    ready = {entry.name for entry in list_adapters() if entry.state == "ready"}
    for name, layout in FAMILIES.items():
        if name not in ready:
            yield Finding("suite", f"{name}: {layout}", "not ready here", "all checks pass", good=False)
            continue
        for dtype in (torch.float32, *([torch.bfloat16] if name in IN_BFLOAT16 else [])):
            spawns = name == "qwen2_5_vl" and dtype == torch.float32
            checks = [check for check in ALL_CHECKS if spawns or check.__name__ != STARTS_A_PROCESS]
            results = run_checks(find_case(name).on(options.device, dtype), checks)
            failed = [f"{result.check}: {result.reason}" for result in results if result.state == "failed"]
            passed = sum(result.state == "passed" for result in results)
            what = f"{name}: {layout}, {str(dtype).removeprefix('torch.')}"
            found = f"{passed} passed, {len(failed)} failed"
            yield Finding("suite", what, found, "0 failed", good=not failed, detail="; ".join(failed))


def train(options: Options) -> Iterator[Finding]:
    """The commands of a researcher: a cache, training from it, training in the loop, evaluation."""
    small = ["train=scenes:count=16,seed=3", "validation=scenes:count=4,seed=6", "epochs=1", f"device={options.device}"]
    with tempfile.TemporaryDirectory() as folder:
        steps = {
            "trained from a cache": ["train", "scenes", *small, f"cache={folder}/cache", "--out", f"{folder}/cached"],
            "trained with the backbone in the loop": [
                "train",
                "scenes",
                *small,
                "cache=null",
                "--out",
                f"{folder}/loop",
            ],
            "evaluated": [
                *("evaluate", f"{folder}/cached/best", "scenes:count=4,seed=4", "--protocol", "packed"),
                *("--device", options.device, "--out", f"{folder}/evaluation"),
            ],
        }
        for what, arguments in steps.items():
            command = [sys.executable, "-W", "ignore", "-m", "vlm_adapters", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command
            last = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1:] or [""]
            found = f"exit code {done.returncode}"
            yield Finding("train", what, found, "exit code 0", good=not done.returncode, detail=last[0])


PARTS: dict[str, Callable[[Options], Iterator[Finding]]] = {
    "suite": suite,
    "kernels": lambda options: kernels(options.device),
    "chain": lambda options: chain(options.device, options.sam),
    "train": train,
    "memory": lambda options: memory(options.device),
}


def found_in(part: str, options: Options) -> Iterator[Finding]:
    """What a part finds; an error ends the part, and the others go on."""
    try:
        yield from PARTS[part](options)
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs into the report
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        yield Finding(part, "the rest of this part", "an error", "none", good=False, detail=reason)


def show(finding: Finding, seconds: float) -> None:
    """One line of the table, as soon as it is known."""
    verdict = {True: "ok", False: "NO", None: "--"}[finding.good]
    print(f"{finding.part:8} {finding.what:64.64} {finding.found:>22} {finding.bar:>18} {verdict:>3} {seconds:6.1f} s")
    if finding.good is not True and finding.detail:
        print(f"         {finding.detail}")
    sys.stdout.flush()


def main() -> int:
    """Read the command line, run the parts, print the table and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--sam", help="checkpoint file of Segment Anything")
    parser.add_argument("--out", default="gpu_check.json", help="where the report goes")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    chosen = parser.parse_args()
    on_gpu = chosen.device.startswith("cuda")
    if on_gpu and not torch.cuda.is_available():
        sys.exit("error: there is no CUDA device here. Run this where there is one, or give --device cpu.")
    try:
        check_transformers()
    except AdapterError as error:
        sys.exit(f"error: {error} Without a network carry its wheel: pip download --no-deps transformers.")
    place = torch.cuda.get_device_name(chosen.device) if on_gpu else chosen.device
    print(f"{place}: {describe(versions())}")
    findings, start = [], time.perf_counter()
    for part in chosen.only:
        last = time.perf_counter()
        for finding in found_in(part, Options(chosen.device, chosen.sam)):
            now = time.perf_counter()
            show(finding, now - last)
            findings.append({**asdict(finding), "seconds": round(now - last, 2)})
            last = time.perf_counter()
    report = {
        "device": place,
        "versions": versions(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "seconds": round(time.perf_counter() - start, 1),
        "findings": findings,
    }
    part_file = Path(f"{chosen.out}.part")
    part_file.write_text(json.dumps(report, indent=2), encoding="utf-8")
    part_file.replace(chosen.out)
    verdicts = [finding["good"] for finding in findings]
    missed = verdicts.count(False)
    counts = f"{verdicts.count(True)} bars met, {missed} missed, {verdicts.count(None)} not run"
    print(f"{counts}, in {report['seconds']} s; report in {chosen.out}")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
