"""Load damaged and hostile checkpoints, decoders and plugins' files: every one must give maps or a typed error.

    python examples/lab/hostile_checkpoints.py --cases 300 --report examples/lab/results/hostile_checkpoints.json

Every case is a copy of an embedded model with one thing changed, drawn by a seed: a field of a JSON file set to a
hostile value, a file cut short, emptied, replaced by a pipe or a device, a flipped bit in the weights, a chat template
that does not end. It runs in a process of its own, which may take 5 seconds of processor time and 1 GiB of memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from child import in_child
from PIL import Image
from report import write_report
from safetensors.torch import load_file, save_file

from vlm_adapters import GridRequest, GroundedVLM, Prompt, load_adapter
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.inspection.model import describe

MODELS = ("tiny-qwen2_5_vl", "tiny-llava")
HOSTILE: dict[str, Any] = {
    "null": None,
    "zero": 0,
    "-1": -1,
    "10**9": 10**9,
    "10**30": 10**30,
    "NaN": float("nan"),
    "infinity": float("inf"),
    "a text": "\x1b[31m<|im_end|>[/b]../../etc",
    "a long text": "a" * 100_000,
    "a list": [1, [2, [3]]],
    "an object": {"auto_map": {"AutoConfig": "evil.Evil"}, "trust_remote_code": True},
    "true": True,
}
TEMPLATES = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "a long product": "{{ 'a' * 10**10 }}",
    "a large power": "{{ 10 ** 10**8 }}",
    "recursion": "{% macro m(n) %}{{ m(n - 1) }}{{ m(n - 1) }}{% endmacro %}{{ m(400) }}",
    "doubling": "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}",
    "a wide format": "{{ '%9999999999d' % 5 }}",
    "escape": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "no end": "{% for m in messages %}",
    "nothing": "",
    "thinking is cut": "{% for m in messages %}{% for p in m['content'] %}{{ '<image>' if p['type'] == 'image' else "
    "p['text'].split('e')[-1] }}{% endfor %}{% endfor %}",
}
DECODER_SIZES = ("channels", "base_width", "depth", "canvas")


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        door: Kind of input.
        name: What was changed, in words.
        model: Embedded model that is changed.
        change: Changes a copy of its folder.
    """

    door: str
    name: str
    model: str
    change: Callable[[Path], None]


def fields(content: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values within JSON, those of long lists and vocabularies left out."""
    entries = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(entries)[:40]:
        yield (*path, key)
        yield from fields(value, (*path, key))


def with_field(file: str, path: tuple[Any, ...], value: Any) -> Callable[[Path], None]:
    """A change of one field of a JSON file."""

    def change(folder: Path) -> None:
        content = json.loads((folder / file).read_text(encoding="utf-8"))
        place = content
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        (folder / file).write_text(json.dumps(content), encoding="utf-8")

    return change


def with_bytes(file: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A change of a file's content."""

    def change(folder: Path) -> None:
        path = folder / file
        path.write_bytes(edit(path.read_bytes() if path.is_file() else b""))

    return change


def with_pipe(file: str) -> Callable[[Path], None]:
    """A named pipe in place of a file."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        os.mkfifo(folder / file)

    return change


def with_device(file: str) -> Callable[[Path], None]:
    """A device that never ends in place of a file."""

    def change(folder: Path) -> None:
        (folder / file).unlink(missing_ok=True)
        (folder / file).symlink_to("/dev/zero")

    return change


def with_weights(edit: Callable[[dict[str, torch.Tensor]], None]) -> Callable[[Path], None]:
    """A change of the tensors of the model."""

    def change(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        edit(weights)
        save_file(weights, folder / "model.safetensors", {"format": "pt"})

    return change


def with_index(shard: object) -> Callable[[Path], None]:
    """An index in place of the one file of weights, which names another file."""

    def change(folder: Path) -> None:
        names = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    return change


def _instead(content: bytes, _: bytes) -> bytes:
    return content


def _cut(share: float, content: bytes) -> bytes:
    return content[: int(share * len(content))]


def _flipped(place: float, bit: int, content: bytes) -> bytes:
    changed = bytearray(content)
    changed[int(place * len(changed))] ^= 1 << bit
    return bytes(changed)


def _spoil(value: float, weights: dict[str, torch.Tensor]) -> None:
    name = next(name for name in weights if "q_proj.weight" in name)
    weights[name][0] = value


def _lose(weights: dict[str, torch.Tensor]) -> None:
    del weights[next(iter(weights))]


def _multiplying(factor: int, times: int) -> dict[str, Any]:
    replace = {"type": "Replace", "pattern": {"String": "e"}, "content": "e" * factor}
    return {"type": "Sequence", "normalizers": [replace] * times}


def generated(draw: random.Random, model: str, folder: Path) -> Iterator[Case]:
    """Cases without end: fields of the JSON files, and damaged weights and texts."""
    files = [path.name for path in sorted(folder.glob("*.json"))]
    paths = {file: list(fields(json.loads((folder / file).read_text(encoding="utf-8")))) for file in files}
    weights = [4 if file in ("config.json", "processor_config.json") else 1 for file in files]
    while True:
        if draw.random() < 0.8:
            (file,) = draw.choices(files, weights)
            path, (name, value) = draw.choice(paths[file]), draw.choice(list(HOSTILE.items()))
            yield Case("field", f"{file}: {'.'.join(map(str, path))} = {name}", model, with_field(file, path, value))
            continue
        file, share = draw.choice([*files, *["model.safetensors"] * 3]), draw.random()
        if draw.random() < 0.5:
            yield Case("cut", f"{file}: the first {share:.2f}", model, with_bytes(file, partial(_cut, share)))
        else:  # often within the header
            change = with_bytes(file, partial(_flipped, share**4, draw.randrange(8)))
            yield Case("bit", f"{file}: a bit is flipped", model, change)


def listed(model: str, folder: Path) -> Iterator[Case]:
    """The cases that are not drawn."""
    yield from texts_and_weights(model)
    yield from kinds_of_file(model, folder)
    yield from decoders(model)
    for factor, times in ((100_000, 1), (10, 12), (1000, 3)):
        change = with_field("tokenizer.json", ("normalizer",), _multiplying(factor, times))
        yield Case("normaliser", f"{factor} letters of one, {times} times", model, change)
    for part, value in itertools.product(("text_config", "vision_config"), (None, {})):
        yield Case("field", f"config.json: {part} = {value}", model, with_field("config.json", (part,), value))


def texts_and_weights(model: str) -> Iterator[Case]:
    """Templates, weights and indices."""
    for name, template in TEMPLATES.items():
        yield Case("template", name, model, with_bytes("chat_template.jinja", partial(_instead, template.encode())))
    for value in (float("nan"), float("inf")):
        yield Case("weights", f"a weight is {value}", model, with_weights(partial(_spoil, value)))
    yield Case("weights", "a tensor is missing", model, with_weights(_lose))
    for name in ("../../x.safetensors", "/dev/zero", "x.bin", 7, None):
        yield Case("index", f"names {name}", model, with_index(name))


def kinds_of_file(model: str, folder: Path) -> Iterator[Case]:
    """Every file as a pipe, a device, empty, and as nested brackets."""
    for file in sorted(path.name for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".jinja")):
        yield Case("pipe", file, model, with_pipe(file))
        yield Case("device", file, model, with_device(file))
        yield Case("empty", file, model, with_bytes(file, partial(_instead, b"")))
        if file.endswith(".json"):
            yield Case("brackets", file, model, with_bytes(file, partial(_instead, b"[" * 200_000)))


def decoders(model: str) -> Iterator[Case]:
    """Sizes, options and files of a decoder."""
    for size, number in itertools.product(DECODER_SIZES, (10**9, 0, -1, 10**4, 1.5, "4", None)):
        yield Case("decoder", f"{size} = {number}", model, with_field("decoder/config.json", ("unet", size), number))
    for name in ("decoder/config.json", "decoder/model.safetensors"):
        yield Case("decoder", f"{name} is a pipe", model, with_pipe(name))
        yield Case("decoder", f"{name} is a device", model, with_device(name))
        yield Case("decoder", f"{name} is cut", model, with_bytes(name, partial(_cut, 0.5)))
        yield Case("decoder", f"{name} is brackets", model, with_bytes(name, partial(_instead, b"[" * 200_000)))
    for option, number in (("min_pixels", 10**8), ("max_pixels", -1), ("min_pixels", 1.5)):
        change = with_field("decoder/config.json", ("backbone", "options"), {option: number})
        yield Case("decoder", f"options: {option} = {number}", model, change)


def cases(count: int, seed: int) -> list[Case]:
    """All listed cases, and as many drawn ones as are needed for `count`."""
    folders = {model: embedded_checkpoints()[model] for model in MODELS}
    found = [case for model, folder in folders.items() for case in listed(model, folder)]
    draw = random.Random(seed)  # noqa: S311 - cases, no secrets
    sources = [generated(draw, model, folder) for model, folder in folders.items()]
    while len(found) < count:
        found.append(next(sources[len(found) % len(sources)]))
    return found


def use(folder: Path, door: str) -> None:
    """Load a checkpoint and take maps of an image; of a decoder's folder, masks."""
    image = Image.new("RGB", (200, 150), "red")
    prompt = Prompt.describe(image, "a red circle and a blue square", ["a red circle"])
    if door == "decoder":
        GroundedVLM.from_pretrained(folder, device="cpu").ground(image, prompt.text, ["a red circle"])
        return
    adapter = load_adapter(folder, device="cpu")
    describe(adapter)
    for grids in adapter.extract(adapter.preprocess([prompt]), GridRequest(hidden_layers=[-1]))[0]:
        if not torch.isfinite(grids.attention).all():
            raise AssertionError("attention that is not finite, without a word")


def main() -> None:
    """Run the cases and print those that do not hold."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sample", type=int, help="run this many of the cases, drawn by the seed")
    parser.add_argument("--only", default="", help="a word of the cases to run")
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    use(embedded_checkpoints()[MODELS[0]], "decoder")  # imports
    use(embedded_checkpoints()[MODELS[1]], "")
    counts: dict[str, Counter[str]] = {}
    fallen, most = [], [0.0, 0.0]
    chosen_cases = cases(chosen.cases, chosen.seed)
    if chosen.sample:
        chosen_cases = random.Random(chosen.seed).sample(chosen_cases, chosen.sample)  # noqa: S311 - as above
    for case in chosen_cases:
        label = f"{case.door}, {case.model}, {case.name}"
        if chosen.only not in label:
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            shutil.copytree(embedded_checkpoints()[case.model], folder)
            case.change(folder)
            outcome = in_child(partial(use, folder, case.door))
        most = [max(most[0], outcome.seconds), max(most[1], outcome.mebibytes)]
        counts.setdefault(case.door, Counter())[outcome.kind if outcome.holds else "fell"] += 1
        if not outcome.holds or chosen.only:
            fallen += [] if outcome.holds else [label]
            print(f"{label}: {outcome}", flush=True)
    print(f"{'door':12} {'accepted':>9} {'typed':>6} {'fell':>5}")
    for door, count in counts.items():
        print(f"{door:12} {count['accepted']:9} {count['typed']:6} {count['fell']:5}")
    numbers: dict[str, object] = {
        "cases": sum(count.total() for count in counts.values()),
        "doors": counts,
        "fell": fallen,
        "most processor seconds": most[0],
        "most MiB above the start": most[1],
        "seed": chosen.seed,
    }
    print(json.dumps(numbers, indent=2))
    if chosen.report:
        write_report(chosen.report, numbers)


if __name__ == "__main__":
    main()
