"""Train an embedded backbone further, on hard scenes, in other words, and on questions.

    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 examples/lab/train_on_hard_scenes.py tiny-llava --small SMALL
        --state FOLDER [--vision-steps 2000] [--text-steps 4400] [--teacher FILE] [--out DIR]

on two processor cores, or in minutes on a GPU, where processes beside write the texts:

    python examples/lab/train_on_hard_scenes.py tiny-llava --small SMALL --state FOLDER --device cuda
        --workers 5 [--vision-minutes 1] [--text-minutes 4]

It begins with the weights of what `train_tiny_backbone.py` wrote to SMALL, in a model with more layers and a finer
image, which at first does what the smaller one did. Then:

1. **Vision stage.** The tower names colour, shape, dot, texture and size at every image token, from the truth masks.
2. **Text stage.** The tower stands still, so its features are computed once. The language model learns to write
   descriptions and answers, and temporary heads over its hidden states learn which image tokens a phrase refers to,
   where a relation starts from, whether the thing is there, and what it is like. No loss touches its attention.

With `--teacher`, the weights of a finished training of tiny-llava, the tower also learns to say what the teacher's
says, and the language model begins with the teacher's weights: the text stage is then short. With `--weights FILE`
instead of `--small`, those of an earlier training of the same model, it is trained further.

Scenes and the state of both stages are kept in FOLDER: the same command resumes an interrupted run. When it is done,
FOLDER/finished.safetensors has the model and its temporary heads.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

# Spinning threads starve the other processes; OpenMP reads this once, when torch loads it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.distributed as dist
from dense_labels import VisionBatches
from larger_families import FAMILIES, LargerLlava
from packed_scenes import PackedScene, packed, write_scenes
from teacher import Teacher
from text_batches import TextBatch, TextBatches, TextEncoder
from tiny_family import TinyFamily
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from trainee import Trainee
from training_stage import Stage
from warm_start import warm_start

VISION_BATCH, TEXT_BATCH, TEXTS = 32, 16, 14
GROUP = {"cpu": 28, "cuda": 112}
"""How many texts of like length are padded together: a GPU rather computes padding than small products."""


def seed_at(stage: Stage) -> int:
    """A seed of batches that no other process has, nor the same one before a kill."""
    return stage.done * dist.get_world_size() + dist.get_rank()


def loaded(batches: IterableDataset, workers: int) -> DataLoader:
    """Batches written by some processes, or by this one."""
    return DataLoader(batches, batch_size=None, num_workers=workers, prefetch_factor=8 if workers else None)


def all_features(trainee: Trainee, scenes: Sequence[PackedScene], device: str) -> list[Tensor]:
    """What the tower says of every scene, `(h * w, D)` bfloat16."""
    sizes: dict[torch.Size, list[int]] = {}
    for number, scene in enumerate(scenes):
        sizes.setdefault(scene.pixels.shape, []).append(number)
    found: dict[int, Tensor] = {}
    with torch.no_grad(), torch.device(device), torch.autocast(device, torch.bfloat16):
        for numbers in sizes.values():
            for start in range(0, len(numbers), VISION_BATCH):
                part = numbers[start : start + VISION_BATCH]
                pixels = torch.stack([scenes[number].pixels for number in part]).to(device)
                found |= zip(part, trainee.see(pixels).bfloat16(), strict=True)
    return [found[number].clone() for number in range(len(scenes))]


def begun(family: TinyFamily, chosen: argparse.Namespace) -> tuple[Trainee, Teacher | None]:
    """What is trained, with its first weights, and its teacher, if it has one."""
    torch.manual_seed(0)
    teacher = None
    if chosen.teacher:
        teacher = Teacher(Trainee.finished(LargerLlava(), chosen.teacher).to(chosen.device))
    if chosen.weights:
        return Trainee.finished(family, chosen.weights).to(chosen.device), teacher
    trainee = Trainee(family, family.build_model())
    warm_start(trainee.model, family.processor.tokenizer, chosen.small)
    if teacher:
        teacher.pass_on(trainee)
    return trainee.to(chosen.device), teacher


def main() -> None:
    """Read the command line, train, and write the checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=FAMILIES)
    begin = parser.add_mutually_exclusive_group(required=True)
    begin.add_argument("--small", type=Path, help="the checkpoint that train_tiny_backbone.py wrote")
    begin.add_argument("--weights", type=Path, help="FOLDER/finished.safetensors of an earlier training")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--vision-steps", type=int, default=2000)
    parser.add_argument("--text-steps", type=int, default=4400)
    parser.add_argument("--vision-minutes", type=float, help="as many steps as fit, instead of a number")
    parser.add_argument("--text-minutes", type=float, help="as many steps as fit, instead of a number")
    parser.add_argument("--teacher", type=Path, help="FOLDER/finished.safetensors of tiny-llava")
    parser.add_argument("--device", choices=GROUP, default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes beside each that trains")
    parser.add_argument("--out", type=Path, help="where the checkpoint is written")
    arguments = parser.parse_args()
    if "RANK" not in os.environ:  # not by torchrun
        os.environ |= {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    dist.init_process_group("gloo")
    family_class, device, processes = FAMILIES[arguments.name], arguments.device, dist.get_world_size()
    if not dist.get_rank():
        write_scenes([family_class], arguments.state / "scenes")
    dist.barrier()
    scenes = packed(family_class, arguments.state / "scenes")[dist.get_rank() :: processes]
    family = family_class()
    trainee, teacher = begun(family, arguments)
    vision = Stage(
        trainee,
        list(trainee.parameters()),
        arguments.state / "vision.pt",
        arguments.vision_steps,
        arguments.vision_minutes,
    )
    images = VisionBatches(scenes, VISION_BATCH // processes, seed_at(vision))
    vision.run(loaded(images, arguments.workers), lambda batch: trainee.vision_losses(batch, teacher))
    features = all_features(trainee, scenes, device)
    tower = {*trainee.dense.parameters(), *trainee.model.parameters()} - {
        *trainee.model.model.language_model.parameters()
    }
    learning = [parameter for parameter in trainee.parameters() if parameter not in tower]
    for parameter in tower:
        parameter.requires_grad_(requires_grad=False)
    text = Stage(trainee, learning, arguments.state / "text.pt", arguments.text_steps, arguments.text_minutes)
    texts = TextBatches(family, scenes, TEXT_BATCH // processes, TEXTS, GROUP[device], seed_at(text))
    before = TextEncoder(family).before_image().to(device)

    def text_losses(batch: TextBatch) -> tuple[Tensor, dict[str, Tensor]]:
        seen = torch.stack([features[number] for number in batch.scenes])
        return trainee.text_losses(batch, seen, before)

    text.run(loaded(texts, arguments.workers), text_losses)
    if dist.get_rank():
        return
    trainee.cpu().save(arguments.state / "finished.safetensors")
    if arguments.out:
        family.save(trainee.model, arguments.out)
        print(f"Wrote {arguments.out}")


if __name__ == "__main__":
    main()
