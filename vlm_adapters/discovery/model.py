"""Discovery over several sizes of image: what holds for each, and the data of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedModel

from vlm_adapters.backbone.layout import ImageLayout
from vlm_adapters.discovery.discover import Discoverer, Discovery
from vlm_adapters.discovery.found import FoundLayouts
from vlm_adapters.discovery.layouts import find_rule, grid_names, layouts_of
from vlm_adapters.discovery.pixels import flat_image
from vlm_adapters.errors import AdapterError, BackboneError
from vlm_adapters.geometry import Size

SIZES: tuple[Size, ...] = ((112, 112), (84, 252), (252, 84), (133, 211), (60, 60), (700, 900))
"""`(H, W)`: square, 1:3, 3:1, odd numbers, below a tile, larger than many limits."""


@dataclass(frozen=True)
class SizeReport:
    """What was found for one size of image.

    Attributes:
        size: `(H, W)` of the image.
        found: Whether its layouts are proven.
        layouts: The layouts, in the order of their tokens; empty where none were found.
        score: The weakest part of the evidence, 0 to 1.
        cells_tried: Number of held-out cells.
        passes: Passes of the vision side.
        problem: Why there are no proven layouts; empty where there are.
    """

    size: Size
    found: bool
    layouts: tuple[ImageLayout, ...]
    score: float
    cells_tried: int
    passes: int
    problem: str = ""


@dataclass(frozen=True)
class ModelReport:
    """What was found for a model.

    Attributes:
        model_type: The `model_type` of its config.
        sizes: The sizes that were probed.
        found: The proven layouts; None where there are none.
    """

    model_type: str
    sizes: tuple[SizeReport, ...]
    found: FoundLayouts | None


def discover_layouts(
    model: PreTrainedModel,
    processor: Any,
    sizes: Sequence[Size] = SIZES,
    *,
    report: Callable[[SizeReport], object] = lambda _: None,
) -> ModelReport:
    """Find and prove how a model lays out images of some sizes.

    Args:
        model: A model of transformers, its weights in float32.
        processor: Its processor.
        sizes: Sizes `(H, W)` of images.
        report: Called with what was found for every size.

    Raises:
        BackboneError: The processor takes no image.
    """
    discoverer = Discoverer(model.eval(), processor)
    discoveries: dict[Size, Discovery] = {}
    reports = []
    for size in sizes:
        found, of_size = _discovered(discoverer, size)
        if found is not None and of_size.found:
            discoveries[size] = found
        reports.append(of_size)
        report(of_size)
    return ModelReport(model.config.model_type, tuple(reports), _data(discoverer, model.config.model_type, discoveries))


def _discovered(discoverer: Discoverer, size: Size) -> tuple[Discovery | None, SizeReport]:
    before = discoverer.vision.passes
    try:
        found = discoverer.discover(size)
        layouts = tuple(layouts_of(found.grids, size, found.cell))
    except (AdapterError, ValueError, RuntimeError, IndexError, TypeError) as error:
        problem = str(error) if isinstance(error, AdapterError) else f"{type(error).__name__}: {error}"
        one_line = " ".join(problem.split())[:300]
        return None, SizeReport(size, False, (), 0.0, 0, discoverer.vision.passes - before, one_line)  # noqa: FBT003
    problem = "" if found.found else found.doubt
    return found, SizeReport(size, found.found, layouts, found.score, found.proof.cells, found.passes, problem)


def _data(discoverer: Discoverer, model_type: str, found: dict[Size, Discovery]) -> FoundLayouts | None:
    if not found:
        return None
    ids = {discovery.image_token_ids for discovery in found.values()}
    if len(ids) > 1:
        raise BackboneError(f"Images of different sizes are shown by tokens of different ids: {sorted(ids)}.")
    features = {size: discoverer.process(flat_image(size, 128)) for size in found}
    cells = sorted(discovery.cell for discovery in found.values())
    cell = cells[len(cells) // 2]
    layouts = {size: tuple(layouts_of(discovery.grids, size, cell)) for size, discovery in found.items()}
    return FoundLayouts(
        model_type=model_type,
        placeholder=discoverer.process.placeholder,
        image_token_ids=ids.pop(),
        grid_names=grid_names(max(map(len, layouts.values()))),
        cell=cell,
        layouts=layouts,
        rule=find_rule({size: (found[size].grids, features[size]) for size in found}),
        scores={size: round(discovery.score, 3) for size, discovery in found.items()},
    )
