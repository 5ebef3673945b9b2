"""What is said where an embedded model, which knows synthetic scenes alone, is given another image."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from PIL import Image

from vlm_adapters.embedded import alias_of
from vlm_adapters.embedded.scene_likeness import looks_like_scene
from vlm_adapters.errors import UnlikeSceneWarning

REAL_CHECKPOINT = "Qwen/Qwen2.5-VL-3B-Instruct"
"""What is named as a model for photographs: the smallest of its family, which can also point."""

_BETWEEN = ("vlm_adapters", "torch")
"""Packages whose frames stand between whoever showed the image and the warning."""


def warnings_about(checkpoint: str, images: Iterable[Image.Image]) -> tuple[str, ...]:
    """What there is to say of images that a checkpoint is given; nothing of a checkpoint that is not embedded.

    Args:
        checkpoint: Name or location of the checkpoint.
        images: Upright RGB images.

    Returns:
        A sentence if an image does not look like a scene, the same for all of them.
    """
    alias = alias_of(checkpoint)
    distinct = {id(image): image for image in images}.values()
    if alias is None or all(map(looks_like_scene, distinct)):
        return ()
    message = (
        f"{alias} was trained on synthetic scenes of coloured shapes, and an image that it was given does not look "
        f"like one: what it finds there means nothing. Use a real checkpoint, such as {REAL_CHECKPOINT} "
        f"(`adapters info {REAL_CHECKPOINT}` shows the memory that it takes, `adapters list` names others)."
    )
    return (message,)


def warn_about(checkpoint: str, images: Iterable[Image.Image]) -> None:
    """Warn with `UnlikeSceneWarning`, at the line outside this library, of what `warnings_about` says."""
    for message in warnings_about(checkpoint, images):
        warnings.warn(message, UnlikeSceneWarning, stacklevel=_frames_between() + 1)


@contextmanager
def images_of_our_own() -> Iterator[None]:
    """A block, or a function, that shows blank or random images to any model and says nothing of what is in them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnlikeSceneWarning)
        yield


def _frames_between() -> int:
    """Count the frames from the caller's outwards to the first of another package."""
    count, frame = 0, sys._getframe(1)  # noqa: SLF001 - as `warnings` itself does
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _BETWEEN:
        count, frame = count + 1, frame.f_back
    return count
