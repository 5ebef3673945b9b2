"""From a recipe to the samples that it learns from: out of caches, which are built where they are missing, or live."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from huggingface_hub import try_to_load_from_cache

from vlm_adapters.backbone.fingerprint import file_fingerprint, json_fingerprint
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CacheError, OptionError, RecipeError
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.hf.placement import resolve_device
from vlm_adapters.registry.loading import load_adapter
from vlm_adapters.training.cache.build import BuildProgress, CachedSamples, build_cache, is_intact
from vlm_adapters.training.cache.fingerprint import FeaturePlan
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import ExtractedSample, ExtractedSamples, LiveSamples

Report = Callable[[str, BuildProgress], None]
"""Told the source of the data that a cache is built of, and how far it is."""


class Joined:
    """Samples of several sources of one plan, as one."""

    def __init__(self, parts: Sequence[ExtractedSamples]) -> None:
        check_alike([part.plan for part in parts])
        self.parts = parts
        self.plan = parts[0].plan
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def phrase_count(self, index: int) -> int:
        """See `ExtractedSamples`."""
        part, inner = self._place(index)
        return self.parts[part].phrase_count(inner)

    def read(self, indices: Sequence[int]) -> list[ExtractedSample]:
        """See `ExtractedSamples`."""
        places = [self._place(index) for index in indices]
        return [sample for part, inner in places for sample in self.parts[part].read([inner])]

    def at_epoch(self, epoch: int) -> Joined:
        """See `ExtractedSamples`."""
        return Joined([part.at_epoch(epoch) for part in self.parts])

    def _place(self, index: int) -> tuple[int, int]:
        part = int(np.searchsorted(self._starts, index, side="right")) - 1
        return part, index - int(self._starts[part])


def check_alike(plans: Sequence[FeaturePlan]) -> None:
    """Check that the same was computed of several data sets.

    Raises:
        CacheError: It was not.
    """
    for plan in plans[1:]:
        if plan.digest != plans[0].digest:
            differing = [told for told in plans[0].differences(plan) if not told.startswith("data:")]
            raise CacheError(
                f"What was computed of {plans[0].data} and of {plan.data} differs: {'; '.join(differing)}. Delete the "
                "older cache, and build it anew."
            )


class Sources:
    """Opens the samples of a recipe, and loads the backbone only where it is needed.

    All data sets are opened at once: a mistake in one shows before another is computed.

    Args:
        recipe: What to open.
        report: Told how far the building of a cache is.

    Attributes:
        sam: The Segment Anything model of the recipe's refiner; None without one.
        profile: Of the heads that are read; None reads all.
        request: What the decoder reads.
        processes: Those that work on the recipe.
    """

    def __init__(self, recipe: Recipe, report: Report = lambda *_: None) -> None:
        self.recipe = recipe
        self.sam: SegmentAnything | None = load_sam(recipe.refiner.sam) if recipe.refiner else None
        self.profile = HeadProfile.read(recipe.heads) if recipe.heads else None
        self.request = _request(recipe, self.profile)
        self._train = [open_dataset(data) for data in recipe.train]
        self._validation = None if recipe.validation is None else open_dataset(recipe.validation)
        self.processes = _processes(recipe.device)
        self._report = report
        self._adapter: BackboneAdapter | None = None

    def train(self) -> ExtractedSamples:
        """Open the samples to learn from."""
        parts = [self._open(data) for data in self._train]
        return parts[0] if len(parts) == 1 else Joined(parts)

    def validation(self) -> tuple[ExtractedSamples, Dataset] | None:
        """Open the samples to choose the best by, and their data set; None if the recipe names none."""
        if self._validation is None:
            return None
        return self._open(self._validation), self._validation

    def caches(self) -> list[CacheToBuild]:
        """The caches of the recipe, finished or not.

        Raises:
            RecipeError: The recipe has no cache.
        """
        if self.recipe.cache is None:
            raise RecipeError("The recipe has no cache to build. Give it a folder: cache=FOLDER.")
        sets = [*self._train, *([self._validation] if self._validation else [])]
        return [CacheToBuild(data, self._folder(data)) for data in sets]

    def build(self, cache: CacheToBuild) -> None:
        """Build a cache, or go on with it."""
        live = self.live(cache.data)
        build_cache(live, cache.folder, report=lambda progress: self._report(cache.data.source, progress))

    def live(self, data: Dataset) -> LiveSamples:
        """Run the backbone on a data set whenever samples are asked for; it is loaded now."""
        recipe = self.recipe
        if self._adapter is None:
            options: dict[str, Any] = {**recipe.options}
            device = str(self.processes.device)  # each process has its own
            self._adapter = load_adapter(
                recipe.model,
                device=device,
                dtype=recipe.dtype,
                attn_implementation=recipe.attn_implementation,
                quantization_config=recipe.quantization,
                **options,
            )
            if self.profile:
                self.profile.check_fits(self._adapter.info)
            if self.sam is not None:
                self.sam.to(self._adapter.info.device)
        plan = FeaturePlan.of(self._adapter, data.source, self.request, self.sam, recipe.keep)
        return LiveSamples(self._adapter, data, plan, self.sam)

    def release(self) -> None:
        """Let go of the backbone; it is loaded again if it is needed."""
        self._adapter = None

    def _open(self, data: Dataset) -> ExtractedSamples:
        if self.recipe.cache is None:
            return self.live(data)
        cache = CacheToBuild(data, self._folder(data))
        if not cache.is_finished():
            if self.processes.num_processes > 1:
                raise CacheError(
                    f"The cache {cache.folder} is not finished, or its data have changed, and it is built by one "
                    "process. Build it first: `adapters cache build` with the same recipe and changes."
                )
            self.build(cache)
        return CachedSamples(cache.folder)

    def _folder(self, data: Dataset) -> Path:
        """Where the cache of a data set lies: named by all that can be known without the backbone."""
        recipe, refiner = self.recipe, self.recipe.refiner
        told: list[object] = [recipe.model, recipe.options, recipe.dtype, recipe.keep, data.source, repr(self.request)]
        told += [value for value in (recipe.attn_implementation, recipe.quantization) if value]
        told.append(_weights_told(recipe.model))
        told.append(refiner and file_fingerprint(Path(refiner.sam)))
        digest = json_fingerprint(told)[:12]
        name = re.sub(r"[^\w.-]+", "-", f"{Path(recipe.model).name}-{data.source}")[:60]
        return Path(recipe.cache or ".") / f"{name}-{digest}"


@dataclass(frozen=True)
class CacheToBuild:
    """A data set, and the folder of its cache."""

    data: Dataset
    folder: Path

    def is_finished(self) -> bool:
        """Whether the cache can be read, and its data set has the same fingerprint as it had then."""
        try:
            return CachedSamples(self.folder).index.data == self.data.fingerprint()
        except CacheError:
            return False

    def is_intact(self) -> bool:
        """Whether every sample and every byte is as it was; reads them all."""
        return is_intact(self.folder, self.data)


def _weights_told(model: str) -> object:
    """What tells the weights of a model apart without loading it: pieces of its files, or the hub's commit."""
    folder = embedded_checkpoints().get(model, Path(model))
    if folder.is_dir():
        return [file_fingerprint(file) for file in sorted(folder.glob("*.safetensors"))]
    config = try_to_load_from_cache(model, "config.json") if model.count("/") <= 1 else None
    return Path(config).parent.name if isinstance(config, str) else None


def _processes(device: str) -> PartialState:
    """The processes of a run, each with its device; one that is named by its number is for a single process.

    Raises:
        RecipeError: The device is not there, or several processes are to share one.
    """
    try:
        place = resolve_device(device)
    except OptionError as error:
        raise RecipeError(f"The recipe asks for device={device}. {error}") from error
    processes = PartialState(cpu=device == "cpu")
    if place.index is not None:
        if processes.num_processes > 1:
            raise RecipeError(
                f"The recipe asks for device={device}, and {processes.num_processes} processes were started, which "
                f"take one each. Take device={place.type}."
            )
        processes.device = place
    return processes


def _request(recipe: Recipe, profile: HeadProfile | None) -> FeatureRequest:
    hidden = recipe.refiner is not None and recipe.refiner.use_text
    if profile is None:
        return FeatureRequest(hidden=hidden)
    heads = [(head.layer, head.head) for head in (*profile.heads, *profile.others)]
    if recipe.top_heads and recipe.top_heads > len(heads):
        raise RecipeError(
            f"top_heads={recipe.top_heads}, and the profile {recipe.heads} names {len(heads)} heads. Ask for fewer, or "
            "make it anew with `adapters calibrate`."
        )
    return FeatureRequest.of_heads(heads[: recipe.top_heads], hidden=hidden)
