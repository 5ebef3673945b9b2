from .backbone.grids import Grids as Grids
from .backbone.grids import ImageGrid as ImageGrid
from .backbone.layout import ImageLayout as ImageLayout
from .backbone.protocol import BackboneAdapter as BackboneAdapter
from .backbone.protocol import BackboneInfo as BackboneInfo
from .backbone.request import GridRequest as GridRequest
from .data.open import open_dataset as open_dataset
from .decoder.model import MaskDecoder as MaskDecoder
from .errors import AdapterError as AdapterError
from .evaluation.run import evaluate as evaluate
from .geometry import place_map as place_map
from .grounding.base import Grounder as Grounder
from .grounding.decoded import GroundedVLM as GroundedVLM
from .grounding.load import load_grounder as load_grounder
from .grounding.result import Grounding as Grounding
from .hf.backbone import TransformersBackbone as TransformersBackbone
from .images import load_image as load_image
from .prompt import Message as Message
from .prompt import Phrase as Phrase
from .prompt import Prompt as Prompt
from .registry.discovery import list_adapters as list_adapters
from .registry.hookspecs import hookimpl as hookimpl
from .registry.loading import load_adapter as load_adapter
from .registry.spec import AdapterSpec as AdapterSpec
from .training.loop import train as train
from .training.recipe import Recipe as Recipe

__version__: str
