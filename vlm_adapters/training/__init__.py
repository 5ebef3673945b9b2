"""Training decoders over frozen backbones, from caches or with the backbone in the loop.

The names stand in `__init__.pyi`. Each is imported when it is first used: the loop needs the extra `train`, and a
recipe does not.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
