"""Train an embedded backbone further, on hard scenes, in other words, and on questions; on two processor cores.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/lab/train_on_hard_scenes.py tiny-llava --state FOLDER
        [--vision-steps 2000] [--text-steps 4400] [--teacher FILE] [--out DIR]

By itself, `python` runs it in one process, which is slower: the products are too small for two threads.

Not finished: the embedded models are those of `train_tiny_backbone.py`. For tiny-llava both stages ran once, in two
hours of two cores, with changes to the losses and texts on the way: `trained/tiny-llava.safetensors`. Relations ("the
star left of the blue circle") were still improving.

It begins with the weights of the embedded model, in one with more layers and a finer image, which at first does what
the smaller one did. Then:

1. **Vision stage.** The tower names colour, shape, dot, texture and size at every image token, from the truth masks.
2. **Text stage.** The tower stands still, so its features are computed once. The language model learns to write
   descriptions and answers, and temporary heads over its hidden states learn which image tokens a phrase refers to,
   where a relation starts from, whether the thing is there, and what it is like. No loss touches its attention.

With `--teacher`, the weights of a finished training of tiny-llava, the tower also learns to say what the teacher's
says, and the language model begins with the teacher's weights: the text stage is then short. With a model as its own
teacher and no more vision steps, it is trained further.

Scenes and the state of both stages are kept in FOLDER: the same command resumes an interrupted run. When it is done,
FOLDER/finished.safetensors has the model and its temporary heads.
"""

from __future__ import annotations

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

# Spinning threads starve the other processes; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import scene_texts
import torch
import torch.distributed as dist
from packed_scenes import PackedScene, packed
from teacher import Teacher
from text_batches import TextBatches, TextEncoder
from tiny_deepseek_vl import TinyDeepseek
from tiny_family import TinyFamily
from tiny_llava import TinyLlava
from tiny_qwen2_5_vl import TinyQwen
from torch import Tensor
from trainee import Trainee
from training_stage import Stage
from warm_start import warm_start

from vlm_adapters.embedded import embedded_checkpoints

TRAIN_SEED = 21
HARD, EASY = 12_000, 4_000
VISION_BATCH, TEXT_BATCH, TEXTS = 32, 16, 14


HOW_MADE = """\
`python examples/lab/train_tiny_backbone.py {name}` made a smaller model from random weights and
`vlm_adapters.data.formats.scenes`, nothing else; `examples/lab/train_on_hard_scenes.py {name}` went on from it in one
with more layers, on `vlm_adapters.data.formats.hard_scenes`, too.

1. **Vision stage.** The vision tower learns at every image token to name the colour, the shape, the dot, the texture
   and the size of the thing there, which cells around belong to it, and its own row and column. **These dense labels
   come from the truth masks of the scenes.**
2. **Text stage.** The language model learns to write descriptions and answers by next-token loss. Beside it, heads that
   are thrown away afterwards read from its hidden states which image tokens a phrase refers to, which a relation starts
   from (**labels from the truth masks, too**), whether the thing is there, and what it is like.

So the hidden states have learned where things are. **No loss touches the attention of the language model**: no target
says where a word should look. That its words look at what they name was not asked for, and is what the decoder
reads."""
LIMITS = """\
Scenes of up to eight shapes that overlap, in six colours, two textures and several sizes; phrases by name, relation,
number and clauses; the questions of `examples/lab/scene_texts.py`; {cells} image tokens. Anything else is outside what
it has seen."""


class LargerLlava(TinyLlava):
    """With more layers, and patches that show more of small things at no more tokens."""

    side, patch, tower_layers, language_layers = 192, 12, 6, 6
    words, how_made, limits = scene_texts.corpus(), HOW_MADE, LIMITS


class LargerDeepseek(TinyDeepseek):
    """With more layers, and patches that show more of small things at no more tokens."""

    side, patch, tower_layers, language_layers = 192, 12, 5, 6
    words, how_made, limits = scene_texts.corpus(), HOW_MADE, LIMITS


class LargerQwen(TinyQwen):
    """With more layers."""

    tower_layers, language_layers = 5, 6
    words, how_made, limits = scene_texts.corpus(), HOW_MADE, LIMITS


FAMILIES: dict[str, type[TinyFamily]] = {family.name: family for family in (LargerLlava, LargerDeepseek, LargerQwen)}


def seed_at(stage: Stage) -> int:
    """A seed of batches that no other process has, nor the same one before a kill."""
    return stage.done * dist.get_world_size() + dist.get_rank()


def vision_losses(
    trainee: Trainee, scenes: Sequence[PackedScene], seed: int, teacher: Teacher | None
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Losses of the vision stage on batches of scenes of one size."""
    rng, sizes = np.random.default_rng(seed), defaultdict(list)
    for scene in scenes:
        sizes[scene.pixels.shape].append(scene)
    groups = list(sizes.values())
    shares = np.array([len(group) for group in groups]) / len(scenes)
    while True:
        group = groups[int(rng.choice(len(groups), p=shares))]
        batch = [group[index] for index in rng.integers(len(group), size=VISION_BATCH // dist.get_world_size())]
        features = trainee.see(batch)
        loss, right = trainee.dense.losses(features, batch)
        watched = {"loss": float(loss.detach()), "shapes of cells": right}
        if teacher:
            feature_loss = teacher.feature_loss(features, batch)
            loss, watched["feature loss"] = loss + feature_loss, float(feature_loss.detach())
        yield loss, watched


def text_losses(
    trainee: Trainee, scenes: Sequence[PackedScene], features: Sequence[Tensor], seed: int
) -> Iterator[tuple[Tensor, dict[str, float]]]:
    """Losses of the text stage; another process writes the texts."""
    texts = TextBatches(trainee.family, scenes, TEXT_BATCH // dist.get_world_size(), TEXTS, seed)
    encoder = TextEncoder(trainee.family)
    for batch in texts:
        numbers = batch.scenes.tolist()
        seen = torch.stack([features[number] for number in numbers])
        rows, columns = scenes[numbers[0]].cover.shape[1:]
        yield trainee.text_losses(batch, seen, encoder.question(rows * columns), (rows, columns))


def all_features(trainee: Trainee, scenes: Sequence[PackedScene]) -> list[Tensor]:
    """What the tower says of every scene, `(h * w, D)` bfloat16."""
    sizes = defaultdict(list)
    for number, scene in enumerate(scenes):
        sizes[scene.pixels.shape].append(number)
    found: dict[int, Tensor] = {}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for numbers in sizes.values():
            for start in range(0, len(numbers), VISION_BATCH):
                part = numbers[start : start + VISION_BATCH]
                found |= zip(part, trainee.see([scenes[number] for number in part]).bfloat16(), strict=True)
    return [found[number].clone() for number in range(len(scenes))]


def main() -> None:
    """Read the command line, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FAMILIES)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--vision-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=4400)
    parser.add_argument("--teacher", type=Path, help="FOLDER/finished.safetensors of tiny-llava")
    parser.add_argument("--out", type=Path, help="where the checkpoint is written")
    arguments = parser.parse_args()
    if "RANK" not in os.environ:  # not by torchrun
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    dist.init_process_group("gloo")
    family_class = FAMILIES[arguments.name]
    if dist.get_rank():
        dist.barrier()  # the first process draws the scenes
    scenes = [
        *packed(family_class, "hard", TRAIN_SEED, HARD, arguments.state / "scenes"),
        *packed(family_class, "easy", TRAIN_SEED, EASY, arguments.state / "scenes"),
    ][dist.get_rank() :: dist.get_world_size()]
    if not dist.get_rank():
        dist.barrier()
    family = family_class()
    torch.manual_seed(0)
    trainee = Trainee(family, family.build_model())
    warm_start(trainee.model, family.processor.tokenizer, embedded_checkpoints()[arguments.name])
    teacher = None
    if arguments.teacher:
        teacher = Teacher(Trainee.finished(LargerLlava(), arguments.teacher))
        teacher.pass_on(trainee)
    vision = Stage(trainee, list(trainee.parameters()), arguments.state / "vision.pt", arguments.vision_steps)
    vision.run(vision_losses(trainee, scenes, seed_at(vision), teacher))
    features = all_features(trainee, scenes)
    tower = {*trainee.dense.parameters(), *trainee.model.parameters()} - {
        *trainee.model.model.language_model.parameters()
    }
    learning = [parameter for parameter in trainee.parameters() if parameter not in tower]
    for parameter in tower:
        parameter.requires_grad_(requires_grad=False)
    text = Stage(trainee, learning, arguments.state / "text.pt", arguments.text_steps)
    text.run(text_losses(trainee, scenes, features, seed_at(text)))
    if dist.get_rank():
        return
    trainee.save(arguments.state / "finished.safetensors")
    if arguments.out:
        family.save(trainee.model, arguments.out)
        print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
