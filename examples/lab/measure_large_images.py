"""Measure time and memory of large images, many phrases and long texts, each trial in a process of its own.

    python examples/lab/measure_large_images.py [--model tiny-qwen2_5_vl] [--sam FILE] [--small] [--report FILE]

Takes about 5 minutes, with Segment Anything (`--sam`) several times that; `--small` tries a quarter of the lengths and
numbers. Memory is the most that the process ever
held in RAM (`resource.getrusage`), beside what it held once the model was loaded and used on a small image, and
the pixels of the masks that are returned.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import psutil
from PIL import Image
from report import write_report

from vlm_adapters import GridRequest, GroundedVLM, Prompt
from vlm_adapters.cli import main as adapters
from vlm_adapters.errors import PromptError

MEBIBYTE = 2**20
PHRASE = "a red circle"
LINK = " and "
SMALL = Image.new("RGB", (64, 48))
USUAL = Image.new("RGB", (300, 200))
"""Grounded with one phrase before memory is measured."""


def photo(height: int, width: int) -> Image.Image:
    """An image of random colours that flow into each other, made in no more memory than it takes."""
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 255, (40, 60, 3), dtype=np.uint8)).resize((width, height))


def text_of(phrases: int) -> tuple[str, list[tuple[int, int]]]:
    """A text of this many phrases, and their spans."""
    step = len(PHRASE + LINK)
    return LINK.join([PHRASE] * phrases), [(step * i, step * i + len(PHRASE)) for i in range(phrases)]


def ground(model: str, height: int, width: int, phrases: int, sam: str | None = None) -> Callable[[], None]:
    """`GroundedVLM.ground`."""
    vlm = GroundedVLM.from_pretrained(model, device="cpu", sam=sam)
    text, spans = text_of(phrases)
    image = photo(height, width)
    vlm.ground(USUAL, *text_of(1))
    return lambda: check(len(vlm.ground(image, text, spans).phrases) == phrases)


def extract(model: str, words: int) -> Callable[[], None]:
    """`extract` of one phrase of many words."""
    vlm = GroundedVLM.from_pretrained(model, device="cpu")
    adapter, text = vlm.adapter, "a cat " * (words // 2)
    adapter.extract(adapter.preprocess([Prompt.describe(SMALL, "a cat", [(0, 5)])]))

    def run() -> None:
        prompt = Prompt.describe(SMALL, text, [(0, len(text))])
        (grids,) = adapter.extract(adapter.preprocess([prompt]), GridRequest())[0]
        check(len(grids.attention) == 1)

    return run


def refuse(model: str, words: int) -> Callable[[], None]:
    """`preprocess` of a text that is too long, with an image of 24 megapixels."""
    adapter = GroundedVLM.from_pretrained(model, device="cpu").adapter
    image, text = photo(4000, 6000), "a cat " * (words // 2)

    def run() -> None:
        with contextlib.suppress(PromptError):
            adapter.preprocess([Prompt.describe(image, text, [(0, 5)])])
            check(found=False)

    return run


def command(name: str, model: str, height: int, width: int, phrases: int, sam: str | None = None) -> Callable[[], None]:
    """`adapters ground` or `adapters attend`, of an image on disk."""
    folder = Path(tempfile.mkdtemp())
    USUAL.save(folder / "small.png")
    photo(height, width).save(folder / "large.jpg")
    options = ["--model", model, "--out", str(folder / "out"), *(["--sam", sam] if sam else [])]

    def run(image: str, phrases: int) -> None:
        text, spans = text_of(phrases)
        asked = [option for start, end in spans for option in ("--span", f"{start}:{end}")]
        sys.argv = ["adapters", name, str(folder / image), text, *asked, *options]
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                adapters()
            except SystemExit as stop:
                check(not stop.code)

    def run_large() -> None:
        run("large.jpg", phrases)
        check(name != "ground" or len(list((folder / "out").glob("mask_*.png"))) == phrases)
        shutil.rmtree(folder)

    run("small.png", 1)
    return run_large


def check(found: bool) -> None:  # noqa: FBT001 - one condition, as assert takes it
    """Stop where a trial did not do what it measures."""
    if not found:
        raise RuntimeError("the trial did not do what it measures")


Trial = tuple[str, int, str]
"""A title, the pixels of all masks that are returned, and a call of one of the functions above."""


def trials(model: str, scale: int, sam: str | None) -> Iterator[Trial]:
    """Every trial; lengths and numbers are divided by `scale`."""
    large, middle = (4000 // scale, 6000 // scale), (1000 // scale, 1500 // scale)
    for phrases, (height, width) in ((200 // scale, middle), (8 // scale, large), (300 // scale, large)):
        title = f"GroundedVLM.ground, {phrases} phrases, {height} x {width}"
        yield title, phrases * height * width, f"ground({model!r}, {height}, {width}, {phrases})"
    height, width = large
    for name, phrases in (("ground", 2), ("attend", 2), ("ground", 300 // scale)):
        title = f"adapters {name}, {phrases} phrases, {height} x {width}"
        masks = phrases * (name == "ground")
        yield title, masks * height * width, f"command({name!r}, {model!r}, {height}, {width}, {phrases})"
    if sam:
        phrases = 300 // scale
        title = f"adapters ground --sam, {phrases} phrases, {height} x {width}"
        yield title, phrases * height * width, f"command('ground', {model!r}, {height}, {width}, {phrases}, {sam!r})"
    yield "adapters ground, 256 phrases, 480 x 640", 256 * 480 * 640, f"command('ground', {model!r}, 480, 640, 256)"
    words = 2400 // scale
    yield f"extract, one phrase of {words} words", 0, f"extract({model!r}, {words})"
    yield "a text of 24,000 words, refused", 0, f"refuse({model!r}, 24000)"


def measured(trial: str) -> dict[str, float]:
    """Seconds and memory of one trial, in this process."""
    run = eval(trial)  # noqa: S307 - a line of `trials`
    loaded, started = psutil.Process().memory_info().rss / MEBIBYTE, perf_counter()
    run()
    seconds = perf_counter() - started
    unit = MEBIBYTE if sys.platform == "darwin" else 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    grown = round(most - loaded)
    return {
        "seconds": round(seconds, 1),
        "MiB at most": round(most),
        "MiB when loaded": round(loaded),
        "MiB more": grown,
    }


def main() -> None:
    """Read the command line, run every trial in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint with a decoder")
    parser.add_argument("--small", action="store_true", help="a quarter of the lengths and numbers")
    parser.add_argument("--sam", help="a checkpoint of Segment Anything, with which one more trial is run")
    parser.add_argument("--only", default="", help="run the trials that have this in their titles")
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    parser.add_argument("--trial", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.trial:
        print(json.dumps(measured(arguments.trial)))
        return
    rows: list[dict[str, object]] = []
    for title, pixels, call in trials(arguments.model, 4 if arguments.small else 1, arguments.sam):
        if arguments.only not in title:
            continue
        command_line = [sys.executable, __file__, "--trial", call]
        run = subprocess.run(command_line, capture_output=True, text=True, check=False)  # noqa: S603 - this file
        if run.returncode:
            sys.exit(f"{title}: {run.stderr}")
        row = {"trial": title, **json.loads(run.stdout.splitlines()[-1]), "MiB of masks": round(pixels / MEBIBYTE)}
        print("  ".join(f"{value}" for value in row.values()), flush=True)
        rows.append(row)
    if arguments.report:
        write_report(arguments.report, {"model": arguments.model, "trials": rows})


if __name__ == "__main__":
    main()
