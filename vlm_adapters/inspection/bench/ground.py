"""Where the time of `ground` goes, from the image's file to the files of the masks."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from vlm_adapters.decoder.checkpoint import CONFIG_FILE, EMBEDDED_FOLDER
from vlm_adapters.grounding.decoded import GroundedVLM
from vlm_adapters.inspection.bench.measure import Section, measurement, synchronize
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import image_of, load_model, scene
from vlm_adapters.output.files import write_grounding
from vlm_adapters.prompt import Prompt

PARTS = ("read", "preprocess", "backbone", "decoder", "refiner", "placing", "writing")


class Stopwatch:
    """Seconds by part; a part that runs inside another one is not counted for that one."""

    def __init__(self, device: str) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._device = device
        self._inside: list[float] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time of a block."""
        synchronize(self._device)
        start = time.perf_counter()
        self._inside.append(0)
        try:
            yield
        finally:
            synchronize(self._device)
            taken = time.perf_counter() - start
            self.seconds[name] += taken - self._inside.pop()
            if self._inside:
                self._inside[-1] += taken

    @contextmanager
    def calls(self, owner: Any, method: str, name: str) -> Iterator[None]:
        """Count the time of all calls of an object's method while the block runs."""
        wrapped: Callable[..., object] = getattr(owner, method)

        def timed(*args: Any, **kwargs: Any) -> object:
            with self.part(name):
                return wrapped(*args, **kwargs)

        object.__setattr__(owner, method, timed)
        try:
            yield
        finally:
            object.__delattr__(owner, method)


def measure(settings: BenchSettings) -> Iterator[Section]:
    """Seconds of every part, and its share of all of it."""
    adapter = load_model(settings)
    checkpoint = adapter.info.checkpoint
    embedded = Path(checkpoint, EMBEDDED_FOLDER, CONFIG_FILE).is_file()
    vlm = GroundedVLM.from_pretrained(checkpoint, adapter=adapter) if embedded else GroundedVLM.untrained(adapter)
    vlm.decoder.to(adapter.device).eval()
    image = scene(*settings.image) if settings.image else image_of(adapter, settings.image_tokens[0])
    taken: dict[str, list[float]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory(prefix="vlm-adapters-bench-") as temporary:
        file = Path(temporary, "image.png")
        image.save(file)
        start = time.perf_counter()
        for turn in range(settings.repeats + 1):
            watch = ground_by_part(vlm, file, settings)
            if turn:  # the first turn warms up
                for part in PARTS:
                    taken[part].append(watch.seconds[part])
            if turn >= 3 and time.perf_counter() - start > settings.seconds:
                break
    whole = np.sum(list(taken.values()), axis=0).tolist()
    rows = [measurement("ground", whole, whole)]
    rows += [measurement(part, seconds, whole) for part, seconds in taken.items() if any(seconds)]
    decoder = "its decoder" if embedded else "an untrained decoder"
    size = f"{image.width} x {image.height} pixels"
    yield Section("ground", f"ground: {size}, {settings.phrases} phrases, {decoder}; ratio = share", tuple(rows))


def ground_by_part(vlm: GroundedVLM, file: Path, settings: BenchSettings) -> Stopwatch:
    """Ground an image's file once; "placing" is all that belongs to no other part."""
    text = " and ".join(f"object {index}." for index in range(settings.phrases))
    phrases = [f"object {index}." for index in range(settings.phrases)]
    watch = Stopwatch(settings.device)
    with watch.part("read"):
        prompt = Prompt.describe(file, text, phrases)
    refiner = vlm.decoder.refiner
    with ExitStack() as stack:
        stack.enter_context(watch.calls(vlm.adapter, "preprocess", "preprocess"))
        stack.enter_context(watch.calls(vlm.adapter, "extract", "backbone"))
        stack.enter_context(watch.calls(vlm.decoder, "forward", "decoder"))
        if refiner is not None:
            stack.enter_context(watch.calls(refiner, "forward", "refiner"))
            stack.enter_context(watch.calls(refiner.sam, "encode", "refiner"))
        stack.enter_context(watch.part("placing"))
        (grounding,) = vlm.ground_all([prompt])
    with watch.part("writing"):
        write_grounding(grounding, file.parent / "out", image_id=file.stem)
    return watch
