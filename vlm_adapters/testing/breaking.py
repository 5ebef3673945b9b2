"""Cases with adapters that are broken on purpose, to show that a check notices.

Every function returns a case whose adapter is broken in one way. The functions can be combined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from vlm_adapters.backbone.grids import Grids
from vlm_adapters.testing.case import AdapterCase


def break_loaded(case: AdapterCase, spoil: Callable[[Any], object]) -> AdapterCase:
    """Spoil every adapter that the case loads."""

    def load(**options: object) -> Any:
        adapter = case.load(**options)  # type: ignore[arg-type]  # passed on unchanged
        spoil(adapter)
        return adapter

    return replace(case, load=load)


def break_method(case: AdapterCase, name: str, around: Callable[..., Any]) -> AdapterCase:
    """Replace a method by `around(method, adapter, *arguments)`, also in calls by the adapter itself."""

    def spoil(adapter: Any) -> None:
        base = type(adapter)

        def method(self: Any, *arguments: Any, **options: Any) -> Any:
            return around(getattr(base, name).__get__(self), self, *arguments, **options)

        adapter.__class__ = type(f"Broken{base.__name__}", (base,), {name: method})

    return break_loaded(case, spoil)


def break_result(case: AdapterCase, name: str, change: Callable[..., Any]) -> AdapterCase:
    """Replace the result of a method by `change(result, *arguments)`."""
    return break_method(
        case, name, lambda method, _, *arguments, **options: change(method(*arguments, **options), *arguments)
    )


def break_arguments(case: AdapterCase, name: str, change: Callable[..., tuple[Any, ...]]) -> AdapterCase:
    """Call a method with the arguments that `change(*arguments)` returns."""
    return break_method(case, name, lambda method, _, *arguments: method(*change(*arguments)))


def break_grids(case: AdapterCase, change: Callable[[Grids], dict[str, Any]]) -> AdapterCase:
    """Replace the fields that `change(grids)` names in every `Grids` that `extract` returns."""

    def change_all(result: list[list[Grids]], *_: object) -> list[list[Grids]]:
        return [[replace(grids, **change(grids)) for grids in of_prompt] for of_prompt in result]

    return break_result(case, "extract", change_all)
