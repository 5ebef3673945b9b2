"""Errors are caught as this library's, and as the builtins that fit them."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from vlm_adapters import AdapterError, Prompt, errors, load_adapter, load_image, open_dataset
from vlm_adapters.registry.discovery import find_adapter

if TYPE_CHECKING:
    from collections.abc import Callable


def test_every_error_is_the_librarys_and_a_builtin() -> None:
    found = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, AdapterError)]
    plain = [error.__name__ for error in found if error.__mro__[1:] == (AdapterError, Exception, BaseException, object)]
    assert len(found) > 10
    assert not plain


def test_an_error_is_caught_as_the_builtin_that_fits_it(subtests: pytest.Subtests) -> None:
    cases: list[tuple[type[Exception], Callable[[], object]]] = [
        (FileNotFoundError, lambda: load_adapter("nothing-of-this-name")),
        (LookupError, lambda: find_adapter("nothing_of_this_name")),
        (ValueError, lambda: load_image(np.zeros((2, 2, 7), np.uint8))),
        (ValueError, lambda: Prompt.describe(Image.new("RGB", (8, 8)), "a cat", ["a dog"])),
        (ValueError, lambda: open_dataset("nothing-of-this-name")),
    ]
    for builtin, fails in cases:
        with subtests.test(builtin=builtin, fails=fails):
            with pytest.raises(builtin) as caught:
                fails()
            assert isinstance(caught.value, AdapterError)
