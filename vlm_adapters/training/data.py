"""From a recipe to the samples that a run learns from: out of caches, or computed by the backbone each time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import try_to_load_from_cache

from vlm_adapters.backbone.fingerprint import file_fingerprint, json_fingerprint
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.data.ahead import default_workers
from vlm_adapters.data.dataset import Dataset
from vlm_adapters.data.open import open_dataset
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import OptionError, RecipeError
from vlm_adapters.evaluation.process import ALONE, Process
from vlm_adapters.heads.profile import HeadProfile
from vlm_adapters.hf.placement import resolve_device
from vlm_adapters.registry.loading import load_adapter
from vlm_adapters.training.cache.build import BuildProgress, CachedSamples, build_cache, is_intact
from vlm_adapters.training.cache.fingerprint import FINGERPRINT_FILE, CacheFingerprint, Precision
from vlm_adapters.training.cache.index import INDEX_FILE
from vlm_adapters.training.recipe import Recipe
from vlm_adapters.training.samples import ConcatSamples, ExtractedSamples, LiveSamples

_LOOKED_AT = 64
"""Number of samples of a set that are looked at for absent phrases."""

CacheReport = Callable[[str, BuildProgress], None]
"""Called with the source of the data that a cache is built of, and how far the build is."""


def no_report(source: str, progress: BuildProgress) -> None:
    """Report nothing: the default."""


@dataclass(frozen=True)
class CacheLocation:
    """A data set, and the folder of its cache."""

    data: Dataset
    folder: Path

    def is_finished(self) -> bool:
        """Whether the cache is complete, and its data set has the same fingerprint as it had then.

        Raises:
            CacheError: It is complete and damaged.
        """
        if not all((self.folder / name).is_file() for name in (FINGERPRINT_FILE, INDEX_FILE)):
            return False
        return CachedSamples(self.folder).index.data_fingerprint == self.data.fingerprint()

    def is_intact(self, process: Process, workers: int) -> bool:
        """Whether every sample and every byte is as it was; the processes read them all, and agree."""
        damaged = torch.tensor(float(not is_intact(self.folder, self.data, process, workers)), device=process.device)
        return not process.sum(damaged)


@dataclass(frozen=True)
class TrainingData:
    """The data sets of a run, what is extracted of them, and where their caches are.

    Attributes:
        train: The sets to learn from.
        validation: The set to choose the best decoder by; None without one.
        request: What the decoder reads.
        cache_dtype: Precision in which it is kept.
        sam: Segment Anything, where it refines the masks; None without it.
        profile: Head profile, of which only the heads are read; None reads all.
        folders: Folders of the caches, by the source of their data; None runs the backbone all along.
        workers: Threads that work ahead of the backbone.
    """

    train: tuple[Dataset, ...]
    validation: Dataset | None
    request: FeatureRequest
    cache_dtype: Precision
    sam: SegmentAnything | None = field(default=None, repr=False)
    profile: HeadProfile | None = None
    folders: dict[str, Path] | None = None
    workers: int = field(default_factory=default_workers)

    @classmethod
    def open(cls, recipe: Recipe) -> Self:
        """Open the data sets of a recipe, all at once: a mistake in one shows before another is computed.

        Raises:
            DataError: A set cannot be opened.
            CheckpointError: The head profile or the Segment Anything checkpoint cannot be read.
            RecipeError: The profile has fewer heads than the recipe asks for.
        """
        sam = load_sam(recipe.refiner.sam) if recipe.refiner else None
        profile = HeadProfile.read(recipe.head_profile) if recipe.head_profile else None
        train = tuple(open_dataset(data) for data in recipe.train)
        request = _request(recipe, profile, presence=learns_presence(recipe, train))
        validation = None if recipe.validation is None else open_dataset(recipe.validation)
        folders = None
        if recipe.cache is not None:
            sources = {data.source for data in (*train, *([validation] if validation else []))}
            folders = {source: Path(recipe.cache) / _folder_name(recipe, request, source) for source in sources}
        workers = default_workers() if recipe.workers is None else recipe.workers
        return cls(train, validation, request, recipe.cache_dtype, sam, profile, folders, workers)

    def caches(self) -> list[CacheLocation]:
        """The caches, finished or not.

        Raises:
            RecipeError: There are none.
        """
        if self.folders is None:
            raise RecipeError("The recipe has no cache to build. Give it a folder: cache=FOLDER.")
        sets = [*self.train, *([self.validation] if self.validation else [])]
        return [CacheLocation(data, self.folders[data.source]) for data in sets]

    def live(self, adapter: BackboneAdapter, data: Dataset) -> LiveSamples:
        """The samples of a data set, computed by a backbone whenever they are read.

        Raises:
            DecoderError: The head profile does not fit the backbone.
        """
        if self.profile:
            self.profile.check_fits(adapter.info)
        if self.sam is not None:
            self.sam.to(adapter.info.device)
        fingerprint = CacheFingerprint.of(adapter, data.source, self.request, self.sam, self.cache_dtype)
        return LiveSamples(adapter, data, fingerprint, self.sam, self.workers)

    def build(
        self,
        adapter: BackboneAdapter,
        caches: Sequence[CacheLocation],
        report: CacheReport = no_report,
        process: Process = ALONE,
    ) -> None:
        """Build caches, each from where an earlier build ended; the first process reports."""
        for cache in caches:
            progress = partial(report if process.is_first else no_report, cache.data.source)
            build_cache(self.live(adapter, cache.data), cache.folder, process=process, report=progress)

    def training_samples(self, adapter: BackboneAdapter | None = None) -> ExtractedSamples:
        """Open the samples to learn from.

        Args:
            adapter: Runs whenever samples are read, where there are no caches; else it is not needed.
        """
        sets = [self._samples(data, adapter) for data in self.train]
        return sets[0] if len(sets) == 1 else ConcatSamples(sets)

    def validation_samples(self, adapter: BackboneAdapter | None = None) -> ExtractedSamples | None:
        """Open the samples of the validation as `training_samples` does; None without one."""
        return None if self.validation is None else self._samples(self.validation, adapter)

    def _samples(self, data: Dataset, adapter: BackboneAdapter | None) -> ExtractedSamples:
        if self.folders is not None:
            return CachedSamples(self.folders[data.source])
        if adapter is None:
            raise RecipeError(f"Without a cache, the samples of {data.source} need the backbone. Give the adapter.")
        return self.live(adapter, data)


def process_of(recipe: Recipe) -> Process:
    """The process of this call, with the device that it takes of those that the recipe names.

    Raises:
        RecipeError: The device is not there, or several processes are to share one.
    """
    try:
        return Process.this(str(resolve_device(recipe.device)))
    except OptionError as error:
        raise RecipeError(f"The recipe asks for device={recipe.device}. {error}") from error


def load_backbone(recipe: Recipe, device: object) -> BackboneAdapter:
    """Load the backbone of a recipe, on the device of this process."""
    options: dict[str, Any] = {**recipe.options}
    return load_adapter(
        recipe.model,
        device=str(device),
        dtype=recipe.dtype,
        attn_implementation=recipe.attn_implementation,
        quantization_config=recipe.quantization,
        **options,
    )


def build_caches(
    recipe: Recipe, *, adapter: BackboneAdapter | None = None, report: CacheReport = no_report
) -> list[CacheLocation]:
    """Build the caches of a recipe; what is there and intact stays.

    Started by `accelerate launch` or `torchrun`, the processes share the work, and any number of them writes the same.

    Args:
        recipe: Names the data and the backbone.
        adapter: The backbone, if that is loaded already; else it is loaded where a cache is not intact.
        report: Called after every sample of the first process.

    Raises:
        RecipeError: The recipe has no cache, or its device is not there.
        OutputError: Another process is building in a folder, or one of those that share the work has ended.
    """
    process = process_of(recipe)
    data = TrainingData.open(recipe)
    caches = data.caches()
    if missing := [cache for cache in caches if not cache.is_intact(process, data.workers)]:
        data.build(adapter or load_backbone(recipe, process.device), missing, report, process)
    return caches


def learns_presence(recipe: Recipe, train: Sequence[Dataset]) -> bool:
    """Whether a run learns presence: what the recipe says or, where it says nothing, whether phrases are absent.

    Of every set, samples that are spread over it are looked at.
    """
    if recipe.presence is not None:
        return recipe.presence
    return any(
        data.annotation(index).has_absent_phrase
        for data in train
        for index in range(0, len(data), max(1, len(data) // _LOOKED_AT))
    )


def _request(recipe: Recipe, profile: HeadProfile | None, *, presence: bool) -> FeatureRequest:
    hidden = presence or (recipe.refiner is not None and recipe.refiner.use_text)
    if profile is None:
        return FeatureRequest(GridRequest(reduce=recipe.reduce), hidden=hidden, log_probabilities=presence)
    heads = [(head.layer, head.head) for head in (*profile.heads, *profile.others)]
    if recipe.top_heads and recipe.top_heads > len(heads):
        raise RecipeError(
            f"top_heads={recipe.top_heads}, and the profile {recipe.head_profile} names {len(heads)} heads. Ask for "
            "fewer, or make it anew with `adapters calibrate`."
        )
    chosen = tuple(heads[: recipe.top_heads])
    grids = replace(GridRequest.of_heads(chosen), reduce=recipe.reduce)
    return FeatureRequest(grids, chosen, hidden=hidden, log_probabilities=presence)


def _folder_name(recipe: Recipe, request: FeatureRequest, source: str) -> str:
    """The name of a cache's folder, made of all that can be known without the backbone."""
    content: list[object] = [recipe.model, recipe.options, recipe.dtype, recipe.cache_dtype, source, repr(request)]
    content += [value for value in (recipe.attn_implementation, recipe.quantization) if value]
    content.append(_weights_version(recipe.model))
    content.append(recipe.refiner and file_fingerprint(Path(recipe.refiner.sam)))
    name = re.sub(r"[^\w.-]+", "-", f"{Path(recipe.model).name}-{source}")[:60]
    return f"{name}-{json_fingerprint(content)[:12]}"


def _weights_version(model: str) -> object:
    """What identifies the weights of a model without loading it: pieces of its files, or the hub's commit."""
    folder = embedded_checkpoints().get(model, Path(model))
    if folder.is_dir():
        return [file_fingerprint(file) for file in sorted(folder.glob("*.safetensors"))]
    config = try_to_load_from_cache(model, "config.json") if model.count("/") <= 1 else None
    return Path(config).parent.name if isinstance(config, str) else None
