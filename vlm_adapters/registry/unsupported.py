"""Well-known families for which no adapter can be built and tested."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class UnsupportedFamily:
    """A family without an adapter.

    Attributes:
        name: Usual name of the family.
        checkpoints: Hub ids of its checkpoints.
        reason: Reason why there is no adapter, without a full stop.
    """

    name: str
    checkpoints: tuple[str, ...]
    reason: str


UNSUPPORTED = (
    UnsupportedFamily(
        "cogvlm",
        ("THUDM/cogvlm-chat-hf", "THUDM/cogvlm2-llama3-chat-19B"),
        "remote code only: transformers has no class of it, so it cannot be run without code from its repository",
    ),
)
