"""How far long work is, as every function that takes a `report` says it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """How far a piece of work is.

    What `evaluate`, `run_bulk`, `build_cache` and `train` give to their `report` has these attributes, and more of its
    kind of work, such as the loss of a `Step`. A `report` is any function that takes one; it is called in the thread
    of the caller, and an exception that it raises ends the work.
    """

    @property
    def done(self) -> int:
        """Number of units that are done, those of an interrupted run included."""

    @property
    def total(self) -> int:
        """Number of units of the work, or of this process's share of it."""

    @property
    def unit(self) -> str:
        """What is counted: `samples`, `images` or `steps`."""

    @property
    def status(self) -> str:
        """What else there is to show on a line; may be empty."""
