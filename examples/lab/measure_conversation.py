"""Measure short conversations of the embedded models about held-out hard scenes: their answers, and what is grounded.

    python examples/lab/measure_conversation.py [--model NAME ...] [--count 200] [--report FILE]

In every scene two questions are asked, one after the other in one conversation, each drawn from those whose answer is
known: what is beside a thing or at a place, where a thing is, its colour or shape, how many there are, whether there is
one, which is the largest. An answer is right if it names all that the true one names, in any order, and nothing else.
The phrases of the answers are grounded in the same conversation: of right answers, the mean IoU of their masks is that
with the things that they name. Controls: the same questions about a grey image, and the likeliest answer to every kind
of question.
"""

from __future__ import annotations

import argparse
import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from report import table, write_report
from scene_texts import Turn, asking

from vlm_adapters import GroundedChat, Grounder, load_grounder
from vlm_adapters.data.formats.hard_scenes import HELD_OUT_SEED, HardScenes
from vlm_adapters.data.formats.scenes import place_words
from vlm_adapters.errors import UnlikeSceneWarning
from vlm_adapters.evaluation import GroundedCaption, gcg_scores
from vlm_adapters.evaluation.metrics import mask_iou

MODELS = ("tiny-qwen2_5_vl", "tiny-llava", "tiny-deepseek_vl")
FIRST = 100_000
"""Position of the first scene in the held-out stream: the sentences of the earlier ones are evaluated elsewhere."""
KINDS = (
    (r"what is (left of|right of|above|below)", "what is beside"),
    (r"what is the (largest|smallest)", "largest, smallest"),
    (r"what (colour|shape) is", "colour, shape"),
    (r"what is", "what is at a place"),
    (r"where is", "where"),
    (r"how many", "how many"),
    (r"is there", "is there"),
)


@dataclass(frozen=True)
class Conversation:
    """Questions about a scene, with their true answers.

    Attributes:
        image: The scene.
        masks: `(N, H, W)` bool of the things in it.
        turns: The questions and answers.
    """

    image: Image.Image = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    turns: tuple[Turn, ...]


def conversations(count: int, turns: int = 2) -> Iterator[Conversation]:
    """Draw questions on held-out scenes."""
    scenes = HardScenes(count, seed=HELD_OUT_SEED, first=FIRST)
    for number in range(count):
        scene, rng = scenes.scene(number), np.random.default_rng((HELD_OUT_SEED, number, 2))
        places = [place_words(mask) for mask in scene.masks]
        drawn = (asking(rng, scene.things, places) for _ in range(20))
        asked = {turn.question: turn for turn in drawn if turn}
        yield Conversation(scene.image, scene.masks, tuple(asked.values())[:turns])


def kind_of(question: str) -> str:
    """What a question asks for."""
    return next(kind for pattern, kind in KINDS if re.match(pattern, question, re.IGNORECASE))


def named(answer: str) -> Counter[str]:
    """What an answer names, in any order."""
    return Counter(re.split(r" and | , ", answer.strip(" .")))


def measure(model: str, count: int) -> dict[str, Any]:
    """Hold the conversations and score them."""
    grounder = load_grounder(model)
    right: dict[str, list[bool]] = defaultdict(list)
    blank: dict[str, list[bool]] = defaultdict(list)
    truths: dict[str, list[str]] = defaultdict(list)
    ious, captions = list[float](), []
    for talk in conversations(count):
        answers = answered(grounder, talk.image, talk.turns)
        grey = answered(grounder, Image.new("RGB", talk.image.size, (127, 127, 127)), talk.turns)
        for turn, (answer, masks), (of_grey, _) in zip(talk.turns, answers, grey, strict=True):
            kind = kind_of(turn.question)
            truths[kind].append(" and ".join(sorted(named(turn.answer).elements())))
            right[kind].append(named(answer) == named(turn.answer))
            blank[kind].append(named(of_grey) == named(turn.answer))
            truth = masks_named(talk, turn)
            if not truth:
                continue
            if right[kind][-1]:
                ious += [mask_iou(masks[name], mask) for name, mask in truth.items() if name in masks]
            captions.append((caption(masks, talk.image), caption(truth, talk.image)))
    scores = gcg_scores(captions, lambda one, other: float(one == other))
    every = [hit for hits in right.values() for hit in hits]
    return {
        "answers right": round(float(np.mean(every)), 4),
        "of a grey image": round(float(np.mean([hit for hits in blank.values() for hit in hits])), 4),
        "the likeliest answer": round(
            sum(Counter(of_kind).most_common(1)[0][1] for of_kind in truths.values()) / len(every), 4
        ),
        "by kind": {
            kind: {
                "questions": len(hits),
                "right": round(float(np.mean(hits)), 4),
                "of a grey image": round(float(np.mean(blank[kind])), 4),
                "the likeliest answer": round(Counter(truths[kind]).most_common(1)[0][1] / len(hits), 4),
            }
            for kind, hits in sorted(right.items())
        },
        "mean IoU in right answers": round(float(np.mean(ious)), 4) if ious else None,
        "phrases in right answers": len(ious),
        "AP50": round(scores.ap50, 4),
        "mIoU": round(scores.miou, 4),
        "recall": round(scores.recall, 4),
    }


def answered(
    grounder: Grounder, image: Image.Image, turns: Sequence[Turn]
) -> list[tuple[str, dict[str, NDArray[np.bool_]]]]:
    """The answers of one conversation, and the mask of every phrase in them."""
    chat, found = GroundedChat(grounder, max_new_tokens=48), []
    for number, turn in enumerate(turns):
        said = chat.ask(turn.question, [] if number else [image])
        phrases = said.groundings[0].phrases if said.groundings else ()
        found.append((said.answer.text, {phrase.phrase.text: phrase.mask for phrase in phrases}))
    return found


def masks_named(talk: Conversation, turn: Turn) -> dict[str, NDArray[np.bool_]]:
    """The true masks of the phrases of an answer; a phrase may name several things."""
    names = re.split(r" and | , ", turn.answer.strip(" ."))
    looks = sorted(turn.in_answer, key=lambda look: look.end)
    if len(looks) != len(names):
        return {}
    return {name: talk.masks[list(look.things)].any(axis=0) for name, look in zip(names, looks, strict=True)}


def caption(masks: dict[str, NDArray[np.bool_]], image: Image.Image) -> GroundedCaption:
    """Phrases with masks, as the scores take them."""
    found = list(masks.values()) or [np.zeros((0, image.height, image.width), np.bool_)]
    return GroundedCaption(list(masks), np.stack(found) if masks else found[0])


def main() -> None:
    """Read the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=MODELS, help="embedded checkpoints, or directories")
    parser.add_argument("--count", type=int, default=200, help="scenes")
    parser.add_argument("--report", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UnlikeSceneWarning)  # a grey image is none
    found = {model: measure(model, arguments.count) for model in arguments.model}
    for model, numbers in found.items():
        kinds = numbers["by kind"]
        print(
            model,
            table(("", *next(iter(kinds.values()))), ((kind, *of.values()) for kind, of in kinds.items())),
            sep="\n",
        )
        print({name: value for name, value in numbers.items() if name != "by kind"})
    if arguments.report:
        write_report(arguments.report, {"scenes": arguments.count, "models": found})


if __name__ == "__main__":
    main()
