"""Checks of videos: which frames each grid shows, where its cells stand, and what the model is given."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.errors import PromptError
from vlm_adapters.geometry import Size
from vlm_adapters.prompt import Message, Prompt
from vlm_adapters.testing.case import AdapterCase, ExpectedGrid
from vlm_adapters.testing.checks_geometry import changed_in, outermost_cells, require_box
from vlm_adapters.testing.checks_stock import compare_ids, compare_pixels
from vlm_adapters.testing.support import (
    PHRASES,
    TEXT,
    CheckSkipped,
    image,
    maps,
    prompt,
    require,
    require_agrees,
    require_equal,
    require_error,
    run,
)
from vlm_adapters.video import Video

_VIDEOS: tuple[tuple[Size, int], ...] = (((84, 112), 4), ((150, 96), 5))
"""Sizes `(H, W)` and numbers of frames; five are not a multiple of the frames that towers put together."""


def check_video_is_taken_or_refused(case: AdapterCase) -> None:
    """A video is either taken, which `AdapterCase.expected_video` says, or refused with a `PromptError`."""
    adapter = case.load()
    if case.expected_video is None:
        require_error(PromptError, lambda: adapter.preprocess([_about(_video(*_VIDEOS[0]))]), "a prompt with a video")
    else:
        adapter.preprocess([_about(_video(*_VIDEOS[0]))])


def check_video_grids(case: AdapterCase) -> None:
    """A video has the oracle's grids in order of time: frames, names, shapes and boxes, and a token for each cell."""
    rule, adapter = _rule(case), case.load()
    for size, frames in _VIDEOS:
        found = adapter.locate_image_tokens(adapter.preprocess([_about(_video(size, frames))]))[0]
        expected, what = rule(size, frames), f"of a video of {frames} frames {size}"
        require_equal(
            [(grid.frames, grid.name, grid.shape) for grid in found],
            [(grid.frames, grid.name, grid.shape) for grid in expected],
            f"frames, names and shapes (h, w) of the grids {what}",
        )
        for grid, of_rule in zip(found, expected, strict=True):
            for cell in ((0, 0), (grid.shape[0] - 1, grid.shape[1] - 1)):
                require_box(grid.cell_box(*cell), of_rule.cell_box(*cell), f"{cell} of frames {grid.frames} {what}")
        tokens = torch.cat([grid.tokens.flatten() for grid in found])
        require_equal(len(tokens.unique()), len(tokens), f"number of distinct tokens {what}")


def check_video_place_and_time(case: AdapterCase) -> None:
    """Changing pixels of one frame changes the token of that place and time most.

    The changed region and the grid that shows the frame are the oracle's.
    """
    rule, adapter = _rule(case), case.load()
    for size, frames in _VIDEOS:
        video, expected = _video(size, frames), rule(size, frames)
        before = _first_states(adapter, video)
        for frame in (0, frames // 2, frames - 1):
            grid = next(index for index, of_rule in enumerate(expected) if _shows(of_rule, frame))
            for cell in outermost_cells(expected[grid], size)[::3]:
                after = _first_states(adapter, _with_change(video, frame, expected[grid], cell))
                change = [(one - other).norm(dim=0) for one, other in zip(after, before, strict=True)]
                most = max(range(len(change)), key=lambda index: float(change[index].max()))
                found = most, divmod(int(change[most].argmax()), change[most].shape[1])
                require_equal(
                    found,
                    (grid, cell),
                    f"grid and cell that change most when frame {frame} of {frames} changes in cell {cell}",
                )


def check_video_beside_an_image(case: AdapterCase) -> None:
    """An image before a video keeps its grids, those of the video follow, and the video does not change the image."""
    rule, adapter = _rule(case), case.load()
    (size, frames), alone = _VIDEOS[0], (96, 150)
    video = _video(size, frames)
    question = Message("user", (image(alone), video, "Describe both."))
    both = Prompt.chat([question, Message("assistant", (TEXT,))], PHRASES)
    found = adapter.locate_image_tokens(adapter.preprocess([both]))[0]
    of_image = case.expected_grids(alone)
    expected = [(0, grid.frames, grid.shape) for grid in of_image]
    expected += [(1, grid.frames, grid.shape) for grid in rule(size, frames)]
    require_equal(
        [(grid.image, grid.frames, grid.shape) for grid in found],
        expected,
        "image, frames and shape (h, w) of the grids of an image and a video",
    )
    if case.video_alone:  # why the model cannot run
        return
    before = _hidden(adapter, both)
    changed = Message("user", (image(alone), replace(video, frames=video.frames[::-1]), "Describe both."))
    after = _hidden(adapter, Prompt.chat([changed, Message("assistant", (TEXT,))], PHRASES))
    moved = [bool((one.hidden - other.hidden).abs().max() > 1e-3) for one, other in zip(after, before, strict=True)]
    require(
        not any(moved[: len(of_image)]) and any(moved[len(of_image) :]),
        f"which grids change when the video after an image changes: expected those of the video, found {moved}",
    )


def check_video_batch_equals_samples(case: AdapterCase) -> None:
    """Prompts with videos of different size, and one with an image, give in a batch what each gives alone."""
    _rule(case)
    adapter = case.load()
    frames = _VIDEOS[0][1]  # the same of all: some processors take no others
    prompts = [_about(_video(size, frames)) for size, _ in _VIDEOS] + ([] if case.video_alone else [prompt()])
    batch = adapter.extract(adapter.preprocess(prompts), GridRequest())
    for index, (one, of_batch) in enumerate(zip(prompts, batch, strict=True)):
        require_agrees(
            case,
            maps(of_batch),
            maps(run(adapter, one)[1]),
            1e-4,
            f"prompt {index} of a batch with videos, attention (P, L, n, cell)",
        )


def check_video_ids_equal_stock(case: AdapterCase) -> None:
    """Token ids of a chat about a video are those that the stock processor makes of all its frames and their times."""
    _rule(case)
    compare_ids(case, _about(_video(*_VIDEOS[1])), "a video")


def check_video_pixels_equal_stock(case: AdapterCase) -> None:
    """Tensors of a video are those that the stock processor makes of all its frames."""
    _rule(case)
    compare_pixels(replace(case, pixels_differ=""), _about(_video(*_VIDEOS[1])), "a video")


def _rule(case: AdapterCase) -> Callable[[Size, int], Sequence[ExpectedGrid]]:
    if case.expected_video is None:
        raise CheckSkipped("the family takes no video (AdapterCase.expected_video)")
    return case.expected_video


def _video(size: Size, frames: int) -> Video:
    """A video of random coloured blocks, two frames a second."""
    return Video([image(size, seed) for seed in range(frames)], [index / 2 for index in range(frames)])


def _about(video: Video) -> Prompt:
    return Prompt.describe(video, TEXT, PHRASES)


def _shows(grid: ExpectedGrid, frame: int) -> bool:
    return grid.frames[0] <= frame < grid.frames[1]


def _with_change(video: Video, frame: int, grid: ExpectedGrid, cell: tuple[int, int]) -> Video:
    frames = list(video.frames)
    frames[frame] = changed_in(frames[frame], grid.cell_box(*cell))
    return replace(video, frames=frames)


def _hidden(adapter: BackboneAdapter, of: Prompt) -> Sequence[Grids]:
    return run(adapter, of, GridRequest(layers=(), hidden_layers=[0]))[1]


def _first_states(adapter: BackboneAdapter, video: Video) -> list[Tensor]:
    """Hidden states `(D, h, w)` after the first layer, per grid."""
    return [grid.hidden[0].float() for grid in _hidden(adapter, _about(video))]
