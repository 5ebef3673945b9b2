"""Finding adapters and loading them by name.

The names stand in `__init__.pyi`. Each is imported when it is first used: a plugin is declared without torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
