"""Encode hostile texts with the adapter of every family: the span of the image must never move.

    python examples/lab/hostile_texts.py --texts 10000 --report examples/lab/results/hostile_texts.json

Texts are put together, by a seed, from the control tokens of all tokenizers and pieces of them, lone surrogates,
combining marks, right-to-left and zero-width characters, private use, and all of Unicode. A text is refused with a
typed error, or its prompt has the image tokens of a harmless text, at the same places, and as many control tokens.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from report import write_report

from vlm_adapters import Message, Prompt, TransformersBackbone, list_adapters
from vlm_adapters.errors import AdapterError
from vlm_adapters.testing import find_case

HARMLESS = "a cat on a mat"
IMAGE = Image.new("RGB", (70, 50), "red")
CHARACTERS = (
    range(0x20),
    range(0x20, 0x7F),
    range(0x7F, 0x250),
    range(0x300, 0x370),
    range(0x590, 0x700),
    range(0x2000, 0x2070),
    range(0x2581, 0x2582),
    range(0x3040, 0x3100),
    range(0x4E00, 0x9FFF),
    range(0xD800, 0xE000),
    range(0xE000, 0xF8FF),
    range(0xFFF0, 0x10000),
    range(0x1F300, 0x1FA00),
    range(0xE0000, 0xE0080),
    range(0xF0000, 0xF0100),
    range(0x110000),
)
"""Control, ASCII, Latin, combining, right to left, zero width, the space of SentencePiece, Japanese, Chinese,
surrogates, private use, specials, emoji, tags, private use of a plane of its own, and all of Unicode."""
TAGS = (
    "<image>",
    "<|image|>",
    "<think>",
    "</think>",
    "{{ messages }}",
    "{% endfor %}",
    "[INST]",
    "<0x0A>",
    "\r\n",
    " ",
)


@dataclass(frozen=True)
class Family:
    """An adapter, and what its prompts of a harmless text look like.

    Attributes:
        adapter: The adapter of the family's case.
        control: Ids of its control tokens, without that for unknown characters.
    """

    adapter: TransformersBackbone
    control: frozenset[int]

    @classmethod
    def of(cls, name: str) -> Family:
        """Load the case of a family."""
        adapter: Any = find_case(name).load()
        tokenizer = adapter.processor.tokenizer
        special = {id_ for id_, token in tokenizer.added_tokens_decoder.items() if token.special}
        return cls(adapter, frozenset(special | adapter.image_token_ids) - {tokenizer.unk_token_id})

    def control_tokens(self) -> list[str]:
        """The texts of its control tokens."""
        return self.adapter.processor.tokenizer.convert_ids_to_tokens(sorted(self.control))

    def spans(self, prompt: Prompt) -> tuple[list[int], list[int]]:
        """The positions of the image's tokens, and the ids of all control tokens in order."""
        inputs = self.adapter.preprocess([prompt])
        ids = inputs.tensors["input_ids"][0].tolist()
        positions = [position for image in inputs.image_tokens[0] for position in image.tolist()]
        return positions, [id_ for id_ in ids if id_ in self.control]


def texts(draw: random.Random, tokens: Sequence[str]) -> Callable[[], str]:
    """A function that puts a text together."""

    def piece() -> str:
        kind = draw.random()
        if kind < 0.4:
            token = draw.choice([*tokens, *TAGS])
            start, end = sorted((draw.randrange(len(token) + 1), draw.randrange(len(token) + 1)))
            return token if draw.random() < 0.7 else token[start:end]
        if kind < 0.6:
            return draw.choice(HARMLESS.split())
        characters = draw.choice(CHARACTERS)
        return "".join(map(chr, draw.choices(characters, k=draw.randrange(1, 5))))

    return lambda: draw.choice(["", " "]).join(piece() for _ in range(draw.randrange(1, 12)))


def prompts(text: str) -> tuple[Prompt, ...]:
    """A text as the model's answer, and as the user's question."""
    return Prompt.describe(IMAGE, text), Prompt.chat([Message("user", (IMAGE, text))])


def measure(names: Sequence[str], count: int, seed: int) -> dict[str, object]:
    """Encode texts with all families by turns, and count how they end."""
    families = {name: Family.of(name) for name in names}
    tokens = sorted({token for family in families.values() for token in family.control_tokens()})
    expected = {name: [family.spans(prompt) for prompt in prompts(HARMLESS)] for name, family in families.items()}
    draw = random.Random(seed)  # noqa: S311 - texts, no secrets
    text_of = texts(draw, tokens)
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    faults: list[str] = []
    for index in range(count):
        name, which, text = names[index % len(names)], index // len(names) % 2, text_of()
        kind = "encoded"
        try:
            if families[name].spans(prompts(text)[which]) != expected[name][which]:
                kind = "moved"
        except AdapterError:
            kind = "typed error"
        except Exception as error:  # noqa: BLE001 - what the trial is after
            kind = f"raw {type(error).__name__}"
        counts[name][kind] += 1
        if kind not in ("encoded", "typed error"):
            faults.append(f"{name}, {'question' if which else 'answer'}: {kind}: {text!r:.300}")
            print(faults[-1], flush=True)
    return {"texts": count, "families": counts, "faults": faults, "control tokens": len(tokens), "seed": seed}


def main() -> None:
    """Encode the texts and print how they ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--texts", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=Path)
    chosen = parser.parse_args()
    names = [entry.name for entry in list_adapters() if entry.name and entry.state == "ready" and entry.spec]
    numbers = measure(names, chosen.texts, chosen.seed)
    for name, count in numbers["families"].items():  # type: ignore[attr-defined]
        print(f"{name:20} {dict(count)}")
    if chosen.report:
        write_report(chosen.report, numbers)


if __name__ == "__main__":
    main()
