"""What is computed of every sample before training, written down so that two runs can be told apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from vlm_adapters.backbone.fingerprint import json_fingerprint, weights_fingerprint
from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo
from vlm_adapters.data.files import write_json
from vlm_adapters.decoder.checkpoint import encoder_told
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.saved import SavedRequest
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import CacheError

PLAN_FILE = "plan.json"
Precision = Literal["float16", "bfloat16"]


class FeaturePlan(BaseModel):
    """Of which model what is computed, of which data, and in which precision it is kept.

    Attributes:
        format: Of the files of a cache; a reader refuses another.
        data: `Dataset.source`.
        backbone: The backbone's `info`; where it lives is not written.
        request: Which maps.
        hidden: Whether hidden states of the phrases are kept.
        encoder: The image encoder of Segment Anything whose embeddings are kept, in words and by digest; None for none.
        dtype: In which maps, hidden states and embeddings are kept.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[2] = 2
    data: str
    backbone: BackboneInfo
    request: SavedRequest
    hidden: bool
    encoder: str | None
    dtype: Precision

    @classmethod
    def of(
        cls,
        adapter: BackboneAdapter,
        data: str,
        request: FeatureRequest,
        sam: SegmentAnything | None = None,
        dtype: Precision = "float16",
    ) -> Self:
        """Describe what `extract` will compute."""
        # an embedded checkpoint by its name, which is the same on other machines
        info = replace(
            adapter.info, checkpoint=alias_of(adapter.info.checkpoint) or adapter.info.checkpoint, device="cpu"
        )
        encoder = sam.model.image_encoder if sam else None
        return cls(
            data=data,
            backbone=info,
            request=SavedRequest.of(request),
            hidden=request.hidden,
            encoder=None if encoder is None else f"{encoder_told(encoder)} {weights_fingerprint(encoder.state_dict())}",
            dtype=dtype,
        )

    @property
    def features(self) -> FeatureRequest:
        """What a decoder reads."""
        return self.request.features(hidden=self.hidden)

    @property
    def tensor_type(self) -> torch.dtype:
        """In which tensors are kept."""
        return {"float16": torch.float16, "bfloat16": torch.bfloat16}[self.dtype]

    @property
    def digest(self) -> str:
        """Names everything but the data: the same for two data sets of one model."""
        return json_fingerprint(self.model_dump(mode="json", exclude={"data": True, "backbone": {"device"}}))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the plan of a cache.

        Raises:
            CacheError: The folder is no cache, or one of another version.
        """
        path = folder / PLAN_FILE
        try:
            return TypeAdapter(cls).validate_json(path.read_bytes())
        except OSError as error:
            raise CacheError(
                f"{folder} is no cache: {PLAN_FILE} cannot be read ({error.strerror or error}). "
                "Make one with `adapters cache build`."
            ) from error
        except ValidationError as error:
            first = error.errors()[0]
            raise CacheError(
                f"{path} is no plan that is known here: {'.'.join(map(str, first['loc']))}: {first['msg']}. "
                "Build the cache anew with `adapters cache build`, in another folder."
            ) from error

    def write(self, folder: Path) -> None:
        """Write the plan of a cache."""
        write_json(folder / PLAN_FILE, self.model_dump(mode="json", exclude={"backbone": {"device"}}))

    def differences(self, other: FeaturePlan) -> list[str]:
        """In what another plan differs, as `name: own -> other`."""
        own, others = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name}: {own[name]} -> {others[name]}" for name in own if own[name] != others[name]]
