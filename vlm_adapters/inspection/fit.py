"""Whether grounding fits on a device of some memory, in which precision, and what to change if it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import torch
from segment_anything import sam_model_registry

from vlm_adapters.backbone.request import GridRequest, resolve_heads, resolve_layers
from vlm_adapters.decoder.checkpoint import CONFIG_FILE, EMBEDDED_FOLDER
from vlm_adapters.decoder.download import download_decoder, is_on_hub
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.model import MaskDecoder
from vlm_adapters.decoder.sam.checkpoint import load_sam
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import UntrainedRefiner
from vlm_adapters.geometry import Size
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.grounding_memory import GroundingMemory, Scene, grounding_memory, on_meta
from vlm_adapters.inspection.weights import Quantization, weight_bytes, working_bytes

CONTEXT = 2**29
"""Bytes that a driver and its libraries take on an accelerator before the first tensor: about half a GiB for CUDA."""
SLACK = 0.1
"""Share of what passes make by which an allocator may hold more than tensors fill."""
SAM_SIZES = ("vit_b", "vit_l", "vit_h")
"""Sizes of the published Segment Anything models."""
_T = TypeVar("_T")
_MOST_DEVICES = 8
_SMALLER = (0.85, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
_SIDES = 8
"""Pixels to a multiple of which the sides of a suggested image are rounded."""


@dataclass(frozen=True)
class Form:
    """A precision in which the backbone can be loaded, and the bytes on the device.

    Attributes:
        dtype: Dtype of all that is not quantised.
        quantization: Quantisation of the linear layers; None for none.
        weights: Weights of the backbone.
        decoder_weights: Weights of the decoder and of Segment Anything.
        passes: Most bytes that the passes make at once.
        allowance: What the driver takes and the allocator keeps beyond tensors; estimated, not counted.
        memory: The bytes of every part of the passes, without what a quantised layer takes for a moment.
        fits: Whether all of it fits on the device; None if its memory was not given.
    """

    dtype: str
    quantization: Quantization | None
    weights: int
    decoder_weights: int
    passes: int
    allowance: int
    memory: GroundingMemory
    fits: bool | None

    @property
    def total(self) -> int:
        """All bytes on the device."""
        return self.weights + self.decoder_weights + self.passes + self.allowance

    @property
    def name(self) -> str:
        """The precision in one word."""
        return self.quantization or self.dtype


@dataclass(frozen=True)
class FitReport:
    """What grounding takes on a device.

    Attributes:
        scene: What is grounded.
        layers: Number of layers whose maps are kept.
        heads: Number of heads whose maps are kept, of each layer.
        decoder: The decoder and the refiner, in words.
        device_memory: Bytes of the device; None if they were not given.
        forms: Every precision, from the largest to the smallest.
        answer: Whether it fits, and how, in a sentence or two.
        changes: What to change so that it fits, each of them alone; empty if it fits unquantised.
    """

    scene: Scene
    layers: int
    heads: int
    decoder: str
    device_memory: int | None
    forms: tuple[Form, ...]
    answer: str
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What is to be planned.

    Attributes:
        scene: What is grounded.
        device_memory: Bytes of the device; None to say only what is taken.
        dtype: The precision that is wanted; None leaves it open.
        quantization: The quantisation that is wanted; None leaves it open.
        decoder: Folder or hub id of a decoder; None takes the one beside the checkpoint, or one of the usual size.
        sam: Segment Anything model on the meta device; None refines nothing.
    """

    scene: Scene
    device_memory: int | None = None
    dtype: str | None = None
    quantization: Quantization | None = None
    decoder: str | None = None
    sam: SegmentAnything | None = None


def fit(adapter: TransformersBackbone, wish: Wish) -> FitReport:
    """Count what grounding takes in every precision, and look for what makes it fit.

    Args:
        adapter: An adapter; its model may be on the meta device.
        wish: What is to be planned.

    Raises:
        ImageError: The family takes no image of this size.
        PromptError: There are more phrases than the model has positions for.
        CheckpointError: The decoder cannot be read.
        DecoderError: The decoder does not fit the backbone or the Segment Anything model.
        BackboneError: The memory cannot be counted.
    """
    return _Planner(adapter, wish).report()


def segment_anything(name: str) -> SegmentAnything:
    """A Segment Anything model on the meta device: of a size, or that of a checkpoint file.

    Args:
        name: `vit_b`, `vit_l`, `vit_h`, or a file.

    Raises:
        CheckpointError: The file is missing or is not such a checkpoint.
    """
    if name not in SAM_SIZES:
        return load_sam(name).to("meta")
    with torch.device("meta"):
        return SegmentAnything(sam_model_registry[name]()).eval()


class _Planner:
    """Counts one form or change after the other; nothing is counted twice."""

    def __init__(self, adapter: TransformersBackbone, wish: Wish) -> None:
        self._wish = wish
        self._info = adapter.info
        self._folder = _decoder_folder(self._info.checkpoint, wish.decoder)
        self._twin = lru_cache(lambda dtype: on_meta(adapter, dtype))
        self._memory = lru_cache(self._count)
        self._all_layers = len(self._info.attention_layers)

    def report(self) -> FitReport:
        wish, decoder = self._wish, self._decoder(self._all_layers)
        grids = decoder.request.grids
        forms = tuple(self._forms(wish.scene, self._all_layers))
        base = self._base(forms)
        changes = tuple(self._changes(base, forms)) if wish.device_memory and not base.fits else ()
        refined = "" if wish.sam is None else f", refined by {wish.sam.image_encoder}"
        return FitReport(
            scene=wish.scene,
            layers=len(resolve_layers(grids.layers, self._info.attention_layers)),
            heads=len(resolve_heads(grids.heads, self._info.num_heads)),
            decoder=("of the usual size" if self._folder is None else f"in {self._folder}") + refined,
            device_memory=wish.device_memory,
            forms=forms,
            answer=_answer(base, forms, wish.device_memory),
            changes=changes,
        )

    def _forms(self, scene: Scene, layers: int) -> Iterator[Form]:
        yield self._form("float32", None, scene, layers)
        half = self._wish.dtype if self._wish.dtype not in (None, "float32") else "bfloat16"
        for quantization in (None, "int8", "nf4"):
            yield self._form(half, quantization, scene, layers)

    def _form(self, dtype: str, quantization: Quantization | None, scene: Scene, layers: int) -> Form:
        kind = getattr(torch, dtype)
        memory, model = self._memory(dtype, scene, layers), self._twin(kind).model
        passes = memory.peak + working_bytes(model, memory.tokens, quantization)
        form = Form(
            dtype=dtype,
            quantization=quantization,
            weights=weight_bytes(model, kind, quantization),
            decoder_weights=weight_bytes(self._decoder(layers), torch.float32),
            passes=passes,
            allowance=CONTEXT + int(SLACK * passes),
            memory=memory,
            fits=None,
        )
        limit = self._wish.device_memory
        return form if limit is None else replace(form, fits=form.total <= limit)

    def _count(self, dtype: str, scene: Scene, layers: int) -> GroundingMemory:
        return grounding_memory(self._twin(getattr(torch, dtype)), scene, GridRequest(), self._decoder(layers))

    def _decoder(self, layers: int) -> MaskDecoder:
        if self._folder is not None:
            return MaskDecoder.load(self._folder, self._info, self._wish.sam).to("meta")
        chosen = None if layers == self._all_layers else self._info.attention_layers[-layers:]
        with torch.device("meta"):
            decoder = MaskDecoder.untrained(self._info, FeatureRequest(GridRequest(layers=chosen)))
            refiner = None if self._wish.sam is None else UntrainedRefiner(self._wish.sam)
            return MaskDecoder(decoder.unet, decoder.request, refiner).eval()

    def _base(self, forms: Sequence[Form]) -> Form:
        """The form that the answer is about: the one that is wanted, else half precision."""
        dtype = self._wish.dtype or "bfloat16"
        return next(
            f for f in forms if f.quantization == self._wish.quantization and (f.dtype == dtype or f.quantization)
        )

    def _changes(self, base: Form, forms: Sequence[Form]) -> Iterator[str]:
        """Changes that make it fit, each alone; with the least that has to be quantised for any of them to do so."""
        limit = self._wish.device_memory or 0
        smaller = [form for form in forms if form.total < base.total]
        yield from (f"{_loading(form)}: {_gib(form.total)}" for form in smaller if form.fits)
        start = next((f for f in (base, *smaller) if f.weights + f.decoder_weights + CONTEXT < limit), None)
        if start is not None and not start.fits:
            beside = "" if start is base else f", with {_loading(start)}"
            yield from (f"{change}{beside}: {_gib(form.total)}" for change, form in self._less(start))
        yield from self._devices(base, limit)

    def _less(self, start: Form) -> Iterator[tuple[str, Form]]:
        """Less work in the same form: the largest image and the most layers and phrases that fit."""
        scene = self._wish.scene

        def form(scene: Scene, layers: int = self._all_layers) -> Form:
            return self._form(start.dtype, start.quantization, scene, layers)

        sizes = [_scaled(scene.image, share) for share in _SMALLER]
        for size, found in _largest(sizes, lambda size: form(replace(scene, image=size))):
            yield f"an image of at most {size[1]} x {size[0]} pixels (width x height)", found
        if self._folder is None:
            counts = sorted({self._all_layers * part // 4 for part in (3, 2, 1)} - {0, self._all_layers}, reverse=True)
            for count, found in _largest(counts, lambda count: form(scene, count)):
                yield f"maps of {count} of {self._all_layers} layers", found
        parts = sorted({scene.phrases // part for part in (2, 4, 8, 16)} - {0}, reverse=True)
        for count, found in _largest(parts, lambda count: form(replace(scene, phrases=count))):
            yield f"{count} phrases at a time", found

    def _devices(self, base: Form, limit: int) -> Iterator[str]:
        for count in range(2, _MOST_DEVICES + 1):
            # The largest share of a balanced map is about a tenth above the mean.
            each = int(1.1 * base.weights / count) + base.decoder_weights + base.passes + base.allowance
            if each <= limit:
                yield f'{count} such devices, device_map="balanced" in {base.name}: {_gib(each)} on each'
                return


def _answer(base: Form, forms: Sequence[Form], limit: int | None) -> str:
    if limit is None:
        return f"Takes {_gib(base.total)} in {base.name}."
    if base.fits:
        return f"Fits in {base.name}: {_gib(base.total)} of {_gib(limit)}."
    sentence = f"Does not fit in {base.name}: it takes {_gib(base.total)} of {_gib(limit)}."
    fitting = [form for form in forms if form.fits and form.quantization]
    if fitting:
        return f"{sentence} Fits with {_loading(fitting[0])}: {_gib(fitting[0].total)}."
    return f"{sentence} Nor does it fit with nf4, which takes {_gib(forms[-1].total)}."


def _largest(candidates: Sequence[_T], form_of: Callable[[_T], Form]) -> Iterator[tuple[_T, Form]]:
    """The first of these candidates, from large to small, that fits; nothing if none does."""
    if not candidates or not (form := form_of(candidates[-1])).fits:
        return
    low, high, found = 0, len(candidates) - 1, form
    while low < high:
        middle = (low + high) // 2
        if (form := form_of(candidates[middle])).fits:
            high, found = middle, form
        else:
            low = middle + 1
    yield candidates[high], found


def _loading(form: Form) -> str:
    return f'quantization_config="{form.quantization}"' if form.quantization else f'dtype="{form.dtype}"'


def _scaled(size: Size, share: float) -> Size:
    height, width = (max(_SIDES, round(side * share / _SIDES) * _SIDES) for side in size)
    return height, width


def _gib(count: int) -> str:
    return f"{count / 2**30:,.1f} GiB"


def _decoder_folder(checkpoint: str, given: str | None) -> Path | None:
    if given is not None:
        return download_decoder(given) if is_on_hub(given) else Path(given)
    beside = Path(checkpoint, EMBEDDED_FOLDER)
    return beside if checkpoint and (beside / CONFIG_FILE).is_file() else None
