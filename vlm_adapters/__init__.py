"""One protocol for frozen vision-language backbones: exact attention and hidden-state grids, and masks from them.

The names stand in `__init__.pyi`. Each is imported when it is first used: the command line starts without torch.
"""

import logging
from typing import Any

import lazy_loader

logging.getLogger(__name__).addHandler(logging.NullHandler())  # an application says what is shown

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - reading metadata takes longer than everything else here

        return version("vlm-adapters")
    try:
        return _load(name)
    except ImportError:
        from vlm_adapters.registry.versions import check_transformers  # noqa: PLC0415 - it reads metadata

        check_transformers()  # an old release lacks names that are imported
        raise
