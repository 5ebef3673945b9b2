"""What an adapter may be able to do beside the protocol: narrow protocols, each for itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from vlm_adapters.prompt import Prompt

Box = tuple[float, float, float, float]
"""`(left, top, right, bottom)`."""


@dataclass(frozen=True)
class CoordinateFrame:
    """The numbers in which a model says where something is; the origin is the picture's upper left corner.

    Attributes:
        width: What the right edge of the picture is called.
        height: What its lower edge is called.
    """

    width: float
    height: float

    def __post_init__(self) -> None:
        if not (self.width > 0 and self.height > 0):
            raise ValueError(f"a frame has a width and a height above 0, got {self.width} x {self.height}")

    def to_picture(self, box: Box, size: tuple[int, int]) -> Box:
        """Turn a box of the frame into pixels of the picture.

        Args:
            box: In the frame.
            size: `(H, W)` of the picture.
        """
        return _scaled(box, size[1] / self.width, size[0] / self.height)

    def from_picture(self, box: Box, size: tuple[int, int]) -> Box:
        """Turn a box in pixels of the picture into the frame: the way back of `to_picture`."""
        return _scaled(box, self.width / size[1], self.height / size[0])


@runtime_checkable
class SupportsGeneration(Protocol):
    """An adapter whose model can answer."""

    def generate(self, prompt: Prompt, max_new_tokens: int = 256) -> str:
        """Let the model answer a prompt that ends with the user's turn, each token the likeliest.

        Args:
            prompt: The chat; its phrases do not matter.
            max_new_tokens: Where the answer is cut off.

        Raises:
            PromptError: The prompt cannot be encoded, or does not end with the user's turn.
        """
        ...


@runtime_checkable
class SupportsPointing(SupportsGeneration, Protocol):
    """An adapter whose model, asked in words, answers with boxes as JSON."""

    def coordinate_frame(self, size: tuple[int, int]) -> CoordinateFrame | None:
        """The frame of its boxes for a picture `(H, W)`; None where this checkpoint is not known to point."""
        ...


def _scaled(box: Box, across: float, down: float) -> Box:
    left, top, right, bottom = box
    return left * across, top * down, right * across, bottom * down
