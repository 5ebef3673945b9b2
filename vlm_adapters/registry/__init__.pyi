from .discovery import list_adapters as list_adapters
from .entry import AdapterEntry as AdapterEntry
from .hookspecs import hookimpl as hookimpl
from .loading import load_adapter as load_adapter
from .spec import AdapterSpec as AdapterSpec
