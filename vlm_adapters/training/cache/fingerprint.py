"""The fingerprint of a cache: what was computed, of which data and by which model, so that caches can be compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

import torch
from pydantic import BaseModel, ConfigDict

from vlm_adapters.backbone.fingerprint import json_fingerprint, weights_fingerprint
from vlm_adapters.backbone.protocol import BackboneAdapter, BackboneInfo
from vlm_adapters.data.files import write_json
from vlm_adapters.data.validated import read_model
from vlm_adapters.decoder.checkpoint import RequestConfig
from vlm_adapters.decoder.features import FeatureRequest
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.embedded import alias_of
from vlm_adapters.errors import CacheError

FINGERPRINT_FILE = "fingerprint.json"
Precision = Literal["float16", "bfloat16"]


class CacheFingerprint(BaseModel):
    """What is computed of every sample, by which model, of which data, and in which precision it is kept.

    Attributes:
        format: Version of a cache's files; a reader refuses another.
        data: `Dataset.source`.
        backbone: The backbone's `info`; where it lives is not written.
        request: The maps that are kept.
        hidden_states: Whether hidden states of the phrases are kept.
        log_probabilities: Whether log probabilities of the phrases' tokens are kept.
        image_encoder: Image encoder of Segment Anything whose embeddings are kept, described, with its digest.
        dtype: Precision of maps, hidden states and embeddings.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    format: Literal[5] = 5
    data: str
    backbone: BackboneInfo
    request: RequestConfig
    hidden_states: bool
    log_probabilities: bool
    image_encoder: str | None
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
        return cls(
            data=data,
            backbone=info,
            request=RequestConfig.of(request),
            hidden_states=request.hidden,
            log_probabilities=request.log_probabilities,
            image_encoder=f"{sam.image_encoder} {weights_fingerprint(sam.model.image_encoder.state_dict())}"
            if sam
            else None,
            dtype=dtype,
        )

    @property
    def feature_request(self) -> FeatureRequest:
        """What a decoder reads."""
        return self.request.to_request(hidden=self.hidden_states, log_probabilities=self.log_probabilities)

    @property
    def tensor_type(self) -> torch.dtype:
        """Precision in which tensors are kept."""
        return {"float16": torch.float16, "bfloat16": torch.bfloat16}[self.dtype]

    @property
    def digest(self) -> str:
        """Digest of everything but the data: the same for two data sets of one model."""
        return json_fingerprint(self.model_dump(mode="json", exclude={"data": True, "backbone": {"device"}}))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the fingerprint of a cache.

        Raises:
            CacheError: The folder is not a cache, or was built by another version.
        """
        remedy = "Build the cache with `adapters cache build`, in a new folder."
        return read_model(folder / FINGERPRINT_FILE, cls, what="cache fingerprint", error=CacheError, remedy=remedy)

    def write(self, folder: Path) -> None:
        """Write the fingerprint into the folder of a cache."""
        write_json(folder / FINGERPRINT_FILE, self.model_dump(mode="json", exclude={"backbone": {"device"}}))

    def differences(self, other: CacheFingerprint) -> list[str]:
        """The differences of another fingerprint, as `name: this -> other`."""
        here, there = self.model_dump(mode="json"), other.model_dump(mode="json")
        return [f"{name}: {here[name]} -> {there[name]}" for name in here if here[name] != there[name]]
