"""The tests of the plugins run on the CPU, wherever they run."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks; what tests start inherits it
os.environ["HF_HUB_OFFLINE"] = "1"  # no test asks the hub

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _no_accelerator() -> Iterator[None]:
    """No variable hides the accelerator of a Mac, so it is hidden from this process at least."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.accelerator, "is_available", lambda: False)
        yield
