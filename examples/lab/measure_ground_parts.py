"""Measure what `adapters ground` does with its time, part by part, through the functions that it calls.

    python examples/lab/measure_ground_parts.py [--model tiny-qwen2_5_vl] [--sam FILE] [--report FILE]

An image of 3000 x 4000 pixels and 20 phrases, unless others are given. Every part is the median of some turns, in the
order in which they are run; the start is that of processes that import everything and load the model. Then all files
are written as the command does it, two at a time.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import TypeVar

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from measure_large_images import photo, text_of
from report import write_report

from vlm_adapters import GroundedVLM, Grounding, Prompt, load_image
from vlm_adapters.data.files import write_json
from vlm_adapters.decoder.features import PhraseFeatures
from vlm_adapters.decoder.logits import MaskLogits
from vlm_adapters.output import (
    coco_results,
    grounding_figure,
    grounding_overlay,
    grounding_to_dict,
    indexed_image,
    write_grounding,
    write_png,
)

Result = TypeVar("Result")
START = "from vlm_adapters.grounding.load import load_grounder; import vlm_adapters.output.files; load_grounder({!r})"


class Watch:
    """Adds up the seconds of parts, by their names and by turns."""

    def __init__(self) -> None:
        self.turns: list[dict[str, float]] = []

    def turn(self) -> None:
        """Begin a turn."""
        self.turns.append({})

    def time(self, part: str, work: Callable[[], Result]) -> Result:
        """Do some work, and add its seconds to a part."""
        started = perf_counter()
        result = work()
        parts = self.turns[-1]
        parts[part] = parts.get(part, 0.0) + perf_counter() - started
        return result

    def medians(self) -> dict[str, float]:
        """The median of every part."""
        return {part: median(turn[part] for turn in self.turns) for part in self.turns[0]}


@torch.no_grad()
def ground(vlm: GroundedVLM, file: Path, phrases: int, watch: Watch) -> Grounding:
    """Do what `adapters ground` does once its model is loaded, one thing after the other."""
    text, spans = text_of(phrases)
    decoder, refiner, out = vlm.decoder, vlm.decoder.refiner, file.parent / "out"
    image = watch.time("read the image", lambda: load_image(file))
    prompt = watch.time("read the image", lambda: Prompt.describe(image, text, spans))
    inputs = watch.time("preprocess", lambda: vlm.adapter.preprocess([prompt]))
    extracted = watch.time("backbone (model)", lambda: vlm.adapter.extract(inputs, decoder.request.grids))
    features = PhraseFeatures.of(extracted[0], decoder.request, vlm.adapter.info)
    coarse = watch.time("U-Net (model)", lambda: decoder.unet(features.maps))
    fine = None
    if refiner is not None:
        encoded = watch.time("SAM encoder (model)", lambda: refiner.sam.encode(image))
        fine = watch.time(
            "SAM decoder and its prompts (model)",
            lambda: refiner.refine(encoded, coarse, features.box, features.hidden or None),
        )
    logits = MaskLogits(features.maps, coarse, features.box, fine)
    grounding = watch.time("place, threshold, pack", lambda: vlm.grounding_of(prompt, logits))
    overlay = watch.time("draw the overlay", lambda: grounding_overlay(grounding))
    watch.time("write the overlay", lambda: write_png(overlay, out / "overlay.png"))
    figure = watch.time("draw the figure", lambda: grounding_figure(grounding))
    watch.time("write the figure", lambda: write_png(figure, out / "figure.png"))
    for index, found in enumerate(grounding.phrases):
        mask = watch.time("write the masks", found.packed.image)
        watch.time("write the masks", lambda mask=mask, index=index: write_png(mask, out / f"mask_{index:02d}.png"))
    together = watch.time("draw masks.png", lambda: indexed_image(grounding))
    watch.time("write masks.png", lambda: write_png(together, out / "masks.png"))
    content = watch.time("run lengths", lambda: [grounding_to_dict(grounding), coco_results(grounding, 1)])
    watch.time("write JSON", lambda: write_json(out / "grounding.json", content))
    return grounding


def files(grounding: Grounding, out: Path, watch: Watch) -> None:
    """Write all files as the command does, of a grounding of which nothing is encoded yet."""
    fresh = replace(grounding, phrases=tuple(replace(found) for found in grounding.phrases))
    watch.time("all files, two at a time", lambda: write_grounding(fresh, out, image_id=1))


def start(model: str, turns: int) -> float:
    """Seconds of a process that imports everything and loads a model, the median of some."""
    seconds = []
    for _ in range(turns):
        started = perf_counter()
        subprocess.run([sys.executable, "-c", START.format(model)], check=True, capture_output=True)  # noqa: S603
        seconds.append(perf_counter() - started)
    return median(seconds)


def main() -> None:
    """Read the command line, run some turns, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-qwen2_5_vl", help="an embedded checkpoint with a decoder")
    parser.add_argument("--sam", help="a checkpoint of Segment Anything that refines the masks")
    parser.add_argument("--size", default="3000x4000", help="HEIGHTxWIDTH of the image")
    parser.add_argument("--phrases", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--report", type=Path, help="write the numbers to this file, too")
    arguments = parser.parse_args()
    height, width = map(int, arguments.size.split("x"))
    parts = {"start: imports, and loading the model": start(arguments.model, arguments.turns)}
    vlm, watch = GroundedVLM.from_pretrained(arguments.model, device="cpu", sam=arguments.sam), Watch()
    together = Watch()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "image.jpg")
        photo(height, width).save(file)
        vlm.ground(photo(200, 300), *text_of(1))
        for _ in range(arguments.turns):
            watch.turn()
            grounding = ground(vlm, file, arguments.phrases, watch)
            together.turn()
            files(grounding, file.parent / "together", together)
    parts |= watch.medians()
    total = sum(parts.values())
    for part, seconds in parts.items():
        print(f"{part:40} {seconds:7.2f} s {seconds / total:6.1%}")
    print(f"{'together':40} {total:7.2f} s")
    ((name, of_files),) = together.medians().items()
    print(f"{name:40} {of_files:7.2f} s")
    if arguments.report:
        rounded = {part: round(seconds, 3) for part, seconds in parts.items()}
        settings = {"model": arguments.model, "size": [height, width], "phrases": arguments.phrases}
        write_report(
            arguments.report,
            {**settings, "refined": arguments.sam is not None, "seconds": rounded, name: round(of_files, 3)},
        )


if __name__ == "__main__":
    main()
