"""Results that show themselves: in a notebook, in a window, as a file."""

from __future__ import annotations

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from vlm_adapters.errors import OutputError
from vlm_adapters.limits import shown


class Displayed(ABC):
    """A result with a figure. A notebook shows it where it is the last value of a cell."""

    @abstractmethod
    def figure(self) -> Image.Image:
        """Draw it as an RGB image."""

    def show(self) -> None:
        """Show the figure: in the notebook where this runs, else in the program that the system opens images with."""
        ipython: Any = sys.modules.get("IPython")
        if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
            ipython.display.display(self)
        else:
            self.figure().show()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the figure as a PNG file, creating its folder.

        Raises:
            OutputError: The name does not end in `.png`, or the file cannot be written.
        """
        if Path(path).suffix.lower() != ".png":
            raise OutputError(
                f"A figure is saved as PNG, and {shown(os.fspath(path), 300)} does not end in .png. Masks and JSON of "
                "a grounding are written by vlm_adapters.output.write_grounding."
            )
        from_output("write_png")(self.figure(), path)

    def _repr_png_(self) -> bytes:
        file = BytesIO()
        self.figure().save(file, "PNG")
        return file.getvalue()


def from_output(name: str) -> Callable[..., Any]:
    """A function of `vlm_adapters.output`, which draws results, so that it imports them: the only way back."""
    found: Callable[..., Any] = getattr(import_module("vlm_adapters.output"), name)
    return found
