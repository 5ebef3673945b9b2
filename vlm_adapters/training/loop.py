"""The training loop: one step after the other, on one process or on many, broken off and gone on with at any step.

Processes are those of Hugging Face accelerate. Every process computes the gradient of its own share of a batch, and
the gradients are summed; a loss is divided by the phrases of the whole batch, so that any number of processes does the
same.
"""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from time import monotonic

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import reduce
from torch import Tensor, nn

from vlm_adapters.data.files import remove_leftovers
from vlm_adapters.decoder.losses import decoder_loss
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import RecipeError
from vlm_adapters.training.cache.fingerprint import FeaturePlan
from vlm_adapters.training.checkpoint import RunState, checkpoints, load_checkpoint, save_checkpoint
from vlm_adapters.training.data import Sources, check_alike
from vlm_adapters.training.log import RunLog, Step
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples
from vlm_adapters.training.validation import Validation


def train(
    recipe: Recipe, out: Path, sources: Sources | None = None, report: Callable[[Step], None] = lambda _: None
) -> RunState:
    """Train by a recipe; goes on where an earlier run into the same folder ended.

    Args:
        recipe: What to do.
        out: Folder of the run: `step-...` (checkpoints, each a decoder's folder), `best` (a link to one of them),
            `log.jsonl`, `tensorboard`, `figures`.
        sources: Opens the samples; by default, the recipe's.
        report: Called after every step, in the main process.

    Returns:
        Where the run is: at its end, or where SIGTERM stopped it.

    Raises:
        RecipeError: The folder holds a run of another recipe, or there is nothing to learn from.
    """
    check_recipe(out, recipe)
    run = _Run(recipe, out, sources or Sources(recipe))
    decoder, optimizer, state = run.decoder, run.optimizer, run.state
    if state.step and run.is_due:
        run.validate()  # where a run was stopped before it came to that
    with _stop_asked() as asked:
        before = monotonic()
        for number, batch in run.batches.read_from(state.step, run.processes):
            rate = rate_at(number, state.total, recipe)
            loss, stop = _gradient(decoder, batch, recipe, stop=asked.is_set())
            norm = float(nn.utils.clip_grad_norm_(decoder.trainable_parameters().values(), recipe.clip))
            _check_finite(loss, norm, number + 1, batch)
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()
            optimizer.zero_grad()
            state.step = number + 1
            now = monotonic()
            step, before = Step(state.step, state.total, loss, rate, norm, now - before), now
            if run.log:
                run.log.step(step)
                report(step)
            if run.is_due or stop:
                run.keep()
            if stop:
                break
            if run.is_due:
                run.validate()
    return state


class _Run:
    """What a run works on, and how it is kept and judged."""

    def __init__(self, recipe: Recipe, out: Path, sources: Sources) -> None:
        self.recipe, self.out, self.processes = recipe, out, sources.processes
        self.samples, self.validation = sources.train(), Validation.of(sources)
        if self.validation is not None:
            check_alike([self.samples.plan, self.validation.samples.plan])
        if recipe.cache is not None:
            sources.release()
        self.decoder = new_decoder(recipe, self.samples.plan, sources.sam).to(self.processes.device)
        self.optimizer = torch.optim.AdamW(
            self.decoder.trainable_parameters().values(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self.batches = _Batches(self.samples, recipe)
        self.state = _resumed(recipe, out, self.batches.total, self.decoder, self.optimizer)
        self.log = RunLog(out, self.state.step) if self.processes.is_main_process else None

    @property
    def is_due(self) -> bool:
        """Whether a checkpoint and a validation are."""
        every = self.recipe.validate_every or self.batches.per_epoch
        return self.state.step == self.state.total or self.state.step % every == 0

    def keep(self) -> None:
        if self.processes.is_main_process:
            save_checkpoint(self.out, self.decoder, self.optimizer, self.state, self.samples.plan.backbone)
        self.processes.wait_for_everyone()

    def validate(self) -> None:
        state, validation = self.state, self.validation
        if validation is None or state.validated_step == state.step:
            return
        iou = validation.mean_iou(self.decoder)
        state.validated_step = state.step
        if state.best_iou is None or iou > state.best_iou:
            state.best_step, state.best_iou = state.step, iou
        if self.log:
            self.log.validation(state.step, iou)
            validation.write_sheet(self.decoder, self.out / "figures" / f"step-{state.step:08d}.png")
        self.keep()


def new_decoder(recipe: Recipe, plan: FeaturePlan, sam: SegmentAnything | None) -> MaskDecoder:
    """Build a decoder with random weights, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    unet = UNet(UNetConfig(plan.features.channels(plan.backbone), **recipe.decoder.model_dump()))
    refiner = None
    if recipe.refiner is not None and sam is not None:
        refiner = SAMRefiner.of(sam, plan.backbone, **recipe.refiner.model_dump(exclude={"sam"}))
    # convolutions on a processor are faster with the channels last
    return MaskDecoder(unet.to(memory_format=torch.channels_last), plan.features, refiner)


def check_recipe(out: Path, recipe: Recipe) -> None:
    """Check that a folder holds no run of another recipe.

    Raises:
        RecipeError: It does, or its last checkpoint is broken.
    """
    for folder in checkpoints(out)[-1:]:
        others, own = RunState.read(folder).recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
        if differing := [f"{name}: {others[name]} -> {own[name]}" for name in own if own[name] != others[name]]:
            raise RecipeError(f"{out} holds a run of another recipe: {'; '.join(differing)}. Give another --out.")


def rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Learning rate of a step, counted from 0: grows evenly, then falls to 0 as half a cosine."""
    warm = round(recipe.warm_up * total)
    if step < warm:
        return recipe.learning_rate * (step + 1) / warm
    return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


@dataclass(frozen=True)
class _Batch:
    """The share of a step's samples that this process takes, without those that cannot be read."""

    samples: Sequence[ExtractedSample]

    @property
    def phrases(self) -> int:
        return sum(len(sample.masks) for sample in self.samples)


class _Batches:
    """The batches of a run. Which samples a step takes is known from its number and the seed alone."""

    def __init__(self, samples: ExtractedSamples, recipe: Recipe) -> None:
        self.samples, self.recipe = samples, recipe
        self.usable = np.array([i for i in range(len(samples)) if samples.phrase_count(i)])
        if not len(self.usable):
            raise RecipeError(f"There is no phrase to learn from in {', '.join(map(str, recipe.train))}.")
        self.per_epoch = math.ceil(len(self.usable) / recipe.batch)
        self.total = self.per_epoch * recipe.epochs

    def epoch(self, number: int) -> tuple[ExtractedSamples, list[int]]:
        """The samples as they are in an epoch, and their order."""
        order = np.random.default_rng((self.recipe.seed, number)).permutation(self.usable)
        return self.samples.at_epoch(number), order.tolist()

    def read_from(self, step: int, processes: PartialState) -> Iterator[tuple[int, _Batch]]:
        """The steps from one on, with the share of their samples that this process takes; one is read ahead."""
        epoch = lru_cache(maxsize=1)(self.epoch)

        def read(number: int) -> _Batch:
            which, place = divmod(number, self.per_epoch)
            samples, order = epoch(which)
            indices = order[place * self.recipe.batch : (place + 1) * self.recipe.batch]
            own = indices[processes.process_index :: processes.num_processes]
            return _Batch(samples.read(own))

        with ThreadPoolExecutor(1) as reader:
            ahead = reader.submit(read, step) if step < self.total else None
            for number in range(step, self.total):
                assert ahead is not None  # noqa: S101 - for the type checker: a step is always read before it is done
                batch = ahead.result()
                ahead = reader.submit(read, number + 1) if number + 1 < self.total else None
                yield number, batch


def _gradient(decoder: MaskDecoder, batch: _Batch, recipe: Recipe, *, stop: bool) -> tuple[float, bool]:
    """Compute the gradient of a batch over all processes; gives its loss, and whether any process is to stop."""
    total = torch.zeros((), device=decoder.device)
    for start in range(0, len(batch.samples), recipe.micro_batch):
        with torch.autocast(decoder.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            samples = batch.samples[start : start + recipe.micro_batch]
            found = decoder([sample.features for sample in samples], [sample.image for sample in samples])
            loss = decoder_loss(found, [sample.masks for sample in samples])
        loss.backward()
        total += loss.detach()
    weights = list(decoder.trainable_parameters().values())
    told = torch.stack([total, total.new_tensor(batch.phrases), total.new_tensor(float(stop))])
    if PartialState().num_processes > 1:
        told = _summed(weights, told)
    loss_sum, phrases, stops = told.tolist()
    for weight in weights:
        if weight.grad is not None:
            weight.grad /= max(phrases, 1)
    return loss_sum / max(phrases, 1), stops > 0


def _summed(weights: Sequence[nn.Parameter], told: Tensor) -> Tensor:
    """Sum gradients and some numbers over the processes; a weight that no process used has no gradient after it."""
    used = told.new_tensor([float(weight.grad is not None) for weight in weights])
    flat = [(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in weights]
    summed = reduce(torch.cat([*flat, used, told]), reduction="sum")
    *gradients, used, told = summed.split([*(len(own) for own in flat), len(weights), len(told)])
    for weight, gradient, count in zip(weights, gradients, used.tolist(), strict=True):
        weight.grad = gradient.view_as(weight).clone() if count else None
    return told


def _check_finite(loss: float, norm: float, number: int, batch: _Batch) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        ids = ", ".join(sample.annotation.id for sample in batch.samples)
        raise RecipeError(
            f"The loss of step {number} is {loss:g} and its gradient's norm {norm:g} (samples {ids}). The checkpoints "
            "before it stay. Take a smaller learning_rate or clip, or look at those samples."
        )


def _resumed(recipe: Recipe, out: Path, total: int, decoder: MaskDecoder, optimizer: torch.optim.Optimizer) -> RunState:
    if not (found := checkpoints(out)):
        return RunState(recipe=recipe, total=total)
    state = RunState.read(found[-1])
    if state.total != total:
        raise RecipeError(
            f"{out} holds a run of {state.total} steps, and the data now give {total}: they have changed. Give another "
            "--out."
        )
    remove_leftovers(out)
    load_checkpoint(found[-1], decoder, optimizer)
    return state


@contextmanager
def _stop_asked() -> Iterator[threading.Event]:
    """Within, SIGTERM only sets an event."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked  # signals are the main thread's
        return
    before = signal.signal(signal.SIGTERM, lambda *_: asked.set())
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)
