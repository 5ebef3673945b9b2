"""The case of CogVLM for the conformance suite, and the published rule of its grid."""

from __future__ import annotations

from torch import Tensor
from typing_extensions import override

from vlm_adapters import BackboneAdapter
from vlm_adapters.backbone import BackboneInputs
from vlm_adapters.testing import AdapterCase, ExpectedGrid, TransformersReference
from vlm_adapters_cogvlm.tiny import PATCH, SIDE, cogvlm


def squashed_grid(size: tuple[int, int], *, side: int = SIDE, patch: int = PATCH) -> list[ExpectedGrid]:
    """The whole image, squashed to a square of so many pixels, in patches."""
    height, width = size
    return [ExpectedGrid((side // patch, side // patch), (0, 0, width, height))]


class TokenTypeReference(TransformersReference):
    """The placeholders have the id of padding, so token types say where the image is."""

    @override
    def image_positions(self, adapter: BackboneAdapter, inputs: BackboneInputs) -> Tensor:
        return inputs.tensors["token_type_ids"] == 1


COGVLM = AdapterCase(
    "cogvlm", load=cogvlm, expected_grids=squashed_grid, several_images=False, reference=TokenTypeReference()
)
