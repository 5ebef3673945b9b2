"""The training loop: one step after the other, on one process or many, interrupted and resumed at any step.

The recipe is read here, and plain values are passed on. Every process computes the gradient of its share of a batch,
and the gradients are summed; a loss is divided by the phrases of the whole batch, so that any number of processes does
the same.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from time import monotonic

import torch
from torch import Tensor, nn

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.locks import locked_folder
from vlm_adapters.decoder.losses import decoder_loss
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.presence import PresenceHead
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.decoder.unet import UNet, UNetConfig
from vlm_adapters.errors import CacheError, RecipeError
from vlm_adapters.evaluation.process import Process
from vlm_adapters.training.batches import Batch, Batches
from vlm_adapters.training.cache.fingerprint import CacheFingerprint
from vlm_adapters.training.checkpoint import RunState, checkpoints, keep_checkpoints, load_checkpoint, save_checkpoint
from vlm_adapters.training.data import CacheReport, TrainingData, load_backbone, no_report, process_of
from vlm_adapters.training.log import RunLog, Step
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import ExtractedSamples, check_alike
from vlm_adapters.training.stopping import StopRequest, stop_requests
from vlm_adapters.training.trackers import check_tracker
from vlm_adapters.training.validation import Validation

_LOG = logging.getLogger(__name__)


def train(
    recipe: Recipe,
    out: str | os.PathLike[str],
    *,
    adapter: BackboneAdapter | None = None,
    report: Callable[[Step], None] = lambda _: None,
    cache_report: CacheReport = no_report,
) -> RunState:
    """Train by a recipe; resumes where an earlier run into the same folder was interrupted.

    A finished run continues with more epochs from its last state. Its learning rate is then, at every step, that of a
    run with so many epochs.

    Args:
        recipe: What to do.
        out: Folder of the run: `step-...` (checkpoints, each a decoder's folder), `best` (a link to one of them),
            `log.jsonl`, `tensorboard`, `figures`.
        adapter: The recipe's backbone, if it is loaded already; else it is loaded where it is needed, and only then.
        report: Called after every step, in the main process.
        cache_report: Called after every sample of a cache that is built.

    Returns:
        Where the run is: at its end, or where SIGTERM stopped it.

    Raises:
        RecipeError: The folder holds a run of another recipe, or a damaged one, or there is nothing to learn from.
        OutputError: Another process is training in the folder, or it cannot be written to.
        CacheError: A cache is damaged.
        KeyboardInterrupt: Ctrl-C, after the run was saved as on SIGTERM.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> from vlm_adapters import Recipe, train
        >>> recipe = Recipe(model="tiny-llava", train=["scenes:count=2"], epochs=1, decoder={"base_width": 4})
        >>> with TemporaryDirectory() as folder:
        ...     state = train(recipe, f"{folder}/run")
        >>> state.step, state.is_finished
        (1, True)
    """
    check_tracker(recipe.tracker)
    process, out = process_of(recipe), Path(out)
    with locked_folder(out, "figures", "step-*") if process.is_first else nullcontext():
        check_recipe(out, recipe)
        data = TrainingData.open(recipe)
        samples, validation = _samples(recipe, data, adapter, process, cache_report)
        batches = Batches(samples, recipe.batch_size, recipe.seed, data.workers)
        run = _Run(recipe, out, process, new_decoder(recipe, samples.fingerprint, data.sam), batches, validation)
        with stop_requests() as stop:
            try:
                run.learn(report, stop)
            finally:
                if run.log:
                    run.log.close()
            stop.raise_interrupt()
    return run.state


def _samples(
    recipe: Recipe,
    data: TrainingData,
    adapter: BackboneAdapter | None,
    process: Process,
    report: CacheReport,
) -> tuple[ExtractedSamples, Validation | None]:
    """Open what is learned from and judged by; of caches, build those that are missing."""
    missing = [cache for cache in data.caches() if not cache.is_finished()] if recipe.cache is not None else []
    if missing and process.count > 1:
        raise CacheError(
            f"The cache {missing[0].folder} is not finished, or its data have changed, and {process.count} processes "
            "train from a finished one. Build it first: `adapters cache build` with the same recipe and changes, or "
            "`accelerate launch -m vlm_adapters cache build` to share that work, too."
        )
    if adapter is None and (missing or recipe.cache is None):
        adapter = load_backbone(recipe, process.device)
    if missing and adapter is not None:
        data.build(adapter, missing, report)
    samples, judged = data.training_samples(adapter), data.validation_samples(adapter)
    if judged is None or data.validation is None:
        return samples, None
    check_alike([samples.fingerprint, judged.fingerprint])
    return samples, Validation(judged, data.validation, recipe.sheet_samples, data.workers)


def new_decoder(recipe: Recipe, fingerprint: CacheFingerprint, sam: SegmentAnything | None) -> MaskDecoder:
    """Build a decoder with random weights, drawn from the recipe's seed."""
    torch.manual_seed(recipe.seed)
    request, info = fingerprint.feature_request, fingerprint.backbone
    unet = UNet(UNetConfig(request.channels(info), **recipe.decoder.model_dump()))
    refiner = None
    if recipe.refiner is not None and sam is not None:
        refiner = SAMRefiner.of(sam, info, **recipe.refiner.model_dump(exclude={"sam"}))
    # convolutions on a processor are faster with the channels last
    unet = unet.to(memory_format=torch.channels_last)
    # last, so that the other weights are the same with and without it
    presence = PresenceHead.of(info, unet.config.channels) if request.log_probabilities else None
    return MaskDecoder(unet, request, refiner, presence)


class _Run:
    """The state of a run, and its steps, checkpoints and validations."""

    def __init__(
        self,
        recipe: Recipe,
        out: Path,
        process: Process,
        decoder: MaskDecoder,
        batches: Batches,
        validation: Validation | None,
    ) -> None:
        self.recipe, self.out, self.process, self.validation = recipe, out, process, validation
        self.batches = batches
        self.backbone = batches.samples.fingerprint.backbone
        self.decoder = decoder.to(process.device)
        self.optimizer = torch.optim.AdamW(
            self.decoder.trainable_parameters().values(),
            lr=recipe.learning_rate,
            betas=recipe.betas,
            weight_decay=recipe.weight_decay,
        )
        self.state = _resumed(recipe, out, self.batches.per_epoch, self.decoder, self.optimizer)
        self.log = RunLog(out, self.state) if process.is_first else None
        _LOG.info("training from step %d to %d on %s", self.state.step, self.state.total_steps, process.device)
        if self.state.step and process.is_first:
            keep_checkpoints(out, self.state, self.is_due)  # a kill may have come before that

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint and a validation are due at a step."""
        every = self.recipe.validate_every or self.batches.per_epoch
        return step == self.state.total_steps or step % every == 0

    def learn(self, report: Callable[[Step], None], stop_request: StopRequest) -> None:
        """Take the steps that are left, until a stop is requested."""
        recipe, state = self.recipe, self.state
        of_presence, of_masks = _by_task(self.decoder)
        if state.step and self.is_due(state.step) and not self.validate(stop_request):
            return  # it was stopped before that validation, and now again
        before = monotonic()
        for number, batch in self.batches.read(range(state.step, state.total_steps), self.process):
            rate = learning_rate_at(number, state.total_steps, recipe.learning_rate, recipe.warmup_ratio)
            loss, stop = self._gradient(batch, stop=bool(stop_request))
            norm = float(nn.utils.clip_grad_norm_(of_masks, recipe.max_grad_norm))
            nn.utils.clip_grad_norm_(of_presence, recipe.max_grad_norm)
            _check_finite(loss, norm, number + 1, batch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            self.optimizer.step()
            self.optimizer.zero_grad()
            state.step = number + 1
            now = monotonic()
            step, before = Step(state.step, state.total_steps, loss, rate, norm, now - before), now
            _LOG.debug("step %d: loss %.4f, gradient's norm %.4f", step.number, step.loss, step.grad_norm)
            if self.log:
                self.log.step(step)
                report(step)
            if self.is_due(state.step) or stop:
                self.keep()
            if stop:
                break
            if self.is_due(state.step) and not self.validate(stop_request):
                break

    def keep(self) -> None:
        """Write a checkpoint, in the main process."""
        if self.process.is_first:
            _LOG.info("saving step %d", self.state.step)
            save_checkpoint(self.out, self.decoder, self.optimizer, self.state, self.backbone)
            keep_checkpoints(self.out, self.state, self.is_due)
        self.process.wait()

    def validate(self, stop_request: StopRequest) -> bool:
        """Judge the decoder, unless that was done at this step; returns False if a stop came first."""
        state, validation = self.state, self.validation
        if validation is None or state.validated_step == state.step:
            return True
        judged = validation.judge(self.decoder, self.process, stop_request)
        if judged is None:
            return False
        if self.decoder.presence and judged.calibration:
            self.decoder.presence.calibration = judged.calibration
        iou = judged.mean_iou
        _LOG.info("validation at step %d: mean IoU %.4f", state.step, iou)
        state.validated_step = state.step
        if state.best_mean_iou is None or iou > state.best_mean_iou:
            state.best_step, state.best_mean_iou = state.step, iou
        if self.log:
            self.log.validation(state.step, iou)
            title = f"Step {state.step:,}: mean IoU {iou:.4f} in validation; the first samples of it"
            validation.write_sheet(self.decoder, self.out / "figures" / f"step-{state.step:08d}.png", title)
        self.keep()
        return True

    def _gradient(self, batch: Batch, *, stop: bool) -> tuple[float, bool]:
        """Compute the gradient of a batch over all processes; gives its loss, and whether any process is to stop."""
        device, size = self.decoder.device, self.recipe.micro_batch_size
        total = torch.zeros((), device=device)
        for start in range(0, len(batch.samples), size):
            samples = batch.samples[start : start + size]
            with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
                found = self.decoder([sample.features for sample in samples], [sample.image for sample in samples])
                loss = decoder_loss(found, [sample.masks for sample in samples])
            loss.backward()
            total += loss.detach()
        weights = list(self.decoder.trainable_parameters().values())
        numbers = torch.stack([total, total.new_tensor(batch.phrases), total.new_tensor(float(stop))])
        if self.process.count > 1:
            numbers = _summed(weights, numbers, self.process)
        loss_sum, phrases, stops = numbers.tolist()
        for weight in weights:
            if weight.grad is not None:
                weight.grad /= max(phrases, 1)
        return loss_sum / max(phrases, 1), stops > 0


def check_recipe(out: Path, recipe: Recipe) -> None:
    """Check that a folder holds no run of another recipe; a finished run may continue with more epochs.

    Raises:
        RecipeError: It does, or its last checkpoint is broken.
    """
    for folder in checkpoints(out)[-1:]:
        state = RunState.read(folder)
        there, here = state.recipe.model_dump(mode="json"), recipe.model_dump(mode="json")
        if state.is_finished and recipe.epochs > state.recipe.epochs:
            there["epochs"] = recipe.epochs
        there |= {name: here[name] for name in ("workers", "tracker")}  # they change no result
        if differing := [f"{name}: {there[name]} -> {here[name]}" for name in here if here[name] != there[name]]:
            raise RecipeError(
                f"{out} holds a run of another recipe: {'; '.join(differing)}. Give another --out. (Only a finished "
                "run may continue, with more epochs.)"
            )


def learning_rate_at(step: int, total: int, peak: float, warmup_ratio: float) -> float:
    """Learning rate of a step, counted from 0: grows evenly to its peak, then falls to 0 as half a cosine."""
    warm = round(warmup_ratio * total)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(total - warm, 1)))


def _by_task(decoder: MaskDecoder) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """The weights that learn presence, and those that learn masks: their gradients are clipped apart."""
    found: tuple[list[nn.Parameter], list[nn.Parameter]] = [], []
    for name, weight in decoder.trainable_parameters().items():
        found[not name.startswith("presence.")].append(weight)
    return found


def _summed(weights: Sequence[nn.Parameter], numbers: Tensor, process: Process) -> Tensor:
    """Sum gradients and some numbers over the processes; a weight that no process used has no gradient after it."""
    used = numbers.new_tensor([float(weight.grad is not None) for weight in weights])
    flat = [(torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten() for weight in weights]
    summed = process.sum(torch.cat([*flat, used, numbers]))
    *gradients, used, numbers = summed.split([*(len(part) for part in flat), len(weights), len(numbers)])
    for weight, gradient, count in zip(weights, gradients, used.tolist(), strict=True):
        weight.grad = gradient.view_as(weight).clone() if count else None
    return numbers


def _check_finite(loss: float, norm: float, number: int, batch: Batch) -> None:
    if not (math.isfinite(loss) and math.isfinite(norm)):
        ids = ", ".join(sample.annotation.id for sample in batch.samples)
        raise RecipeError(
            f"The loss of step {number} is {loss:g} and its gradient's norm {norm:g} (samples {ids}). The checkpoints "
            "before it stay. Take a smaller learning_rate or max_grad_norm, or look at those samples."
        )


def _resumed(
    recipe: Recipe, out: Path, steps_per_epoch: int, decoder: MaskDecoder, optimizer: torch.optim.Optimizer
) -> RunState:
    total = steps_per_epoch * recipe.epochs
    if not (found := checkpoints(out)):
        return RunState(recipe=recipe, total_steps=total)
    state = RunState.read(found[-1])
    if state.total_steps != steps_per_epoch * state.recipe.epochs:
        raise RecipeError(
            f"{out} holds a run of {state.total_steps} steps, and the data now give "
            f"{steps_per_epoch * state.recipe.epochs}: they have changed. Give another --out."
        )
    load_checkpoint(found[-1], decoder, optimizer)
    state.recipe, state.total_steps = recipe, total
    return state
