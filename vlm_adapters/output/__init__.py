"""Output: what people see and other tools read: figures, overlays, COCO results, galleries."""

from vlm_adapters.output.animation import write_animation
from vlm_adapters.output.attention import attention_map, attention_sheet
from vlm_adapters.output.conversation import ConversationFiles
from vlm_adapters.output.drawing import grid_drawing
from vlm_adapters.output.exports import CocoResult, coco_results, grounding_to_dict, indexed_image, to_detections
from vlm_adapters.output.figures import grounding_figure, heat_sheet, labelled_overlay, mask_sheet, video_sheet
from vlm_adapters.output.files import write_grounding
from vlm_adapters.output.gallery import write_gallery
from vlm_adapters.output.gcg import GCGResult, gcg_result, gcg_text
from vlm_adapters.output.looking import Attention, PhraseAttention, look
from vlm_adapters.output.render import colour_of, grounding_overlay, heat_overlay, mask_overlay, write_png

__all__ = [
    "Attention",
    "CocoResult",
    "ConversationFiles",
    "GCGResult",
    "PhraseAttention",
    "attention_map",
    "attention_sheet",
    "coco_results",
    "colour_of",
    "gcg_result",
    "gcg_text",
    "grid_drawing",
    "grounding_figure",
    "grounding_overlay",
    "grounding_to_dict",
    "heat_overlay",
    "heat_sheet",
    "indexed_image",
    "labelled_overlay",
    "look",
    "mask_overlay",
    "mask_sheet",
    "to_detections",
    "video_sheet",
    "write_animation",
    "write_gallery",
    "write_grounding",
    "write_png",
]
