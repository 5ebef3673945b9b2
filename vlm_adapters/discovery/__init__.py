"""Discovery: how a model of transformers lays images out in tokens, found by probing and written as a plugin of data.

`pixels` finds the place of every number that the processor gives, `vision` runs the vision side alone, `places`
measures where every token looks, `structure` makes grids of that, and `proof` tests them on cells that had no part.
"""

from vlm_adapters.discovery.adapter import DiscoveredBackbone
from vlm_adapters.discovery.case import held_out_case
from vlm_adapters.discovery.discover import Discoverer, Discovery
from vlm_adapters.discovery.found import FoundLayouts
from vlm_adapters.discovery.model import discover_layouts

__all__ = [
    "DiscoveredBackbone",
    "Discoverer",
    "Discovery",
    "FoundLayouts",
    "discover_layouts",
    "held_out_case",
]
