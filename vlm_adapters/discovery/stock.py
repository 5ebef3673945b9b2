"""The stock processor of a model, given one image and no text."""

from __future__ import annotations

from typing import Any

from PIL import Image

from vlm_adapters.errors import BackboneError

_PLACEHOLDERS = ("image_token", "boi_token", "start_image_token", "image_start_token", "image_bos_token")
"""Names under which processors hold the text that stands for an image."""


class StockProcessor:
    """Runs a processor over single images.

    Attributes:
        processor: The processor.
        placeholder: The text in place of the image that the processor takes; empty where it writes one by itself.
    """

    def __init__(self, processor: Any, placeholder: str | None = None) -> None:
        self.processor = processor
        self.placeholder = self._find_placeholder() if placeholder is None else placeholder

    def __call__(self, image: Image.Image, **options: Any) -> dict[str, Any]:
        """The features of one image, as a batch of one."""
        return self._features(image, self.placeholder, options)

    def _find_placeholder(self) -> str:
        image = Image.new("RGB", (224, 224))
        texts = [text for name in _PLACEHOLDERS if isinstance(text := getattr(self.processor, name, None), str)]
        problem: Exception | None = None
        for text in [*dict.fromkeys(texts), ""]:
            try:
                features = self._features(image, text, {})
            except Exception as error:  # noqa: BLE001 - whatever a processor raises, the next text is tried
                problem = problem or error
                continue
            if "input_ids" in features:
                return text
        raise BackboneError(
            f"{type(self.processor).__name__} takes no image with the text that stands for it: "
            f"{type(problem).__name__}: {' '.join(str(problem).split())[:200]}"
        )

    def _features(self, image: Image.Image, text: str, options: dict[str, Any]) -> dict[str, Any]:
        special = {"add_special_tokens": False} if text else {}
        return dict(
            self.processor(
                text=[text],
                images=[[image]],
                padding=True,
                return_mm_token_type_ids=True,
                return_tensors="pt",
                **special,
                **options,
            )
        )
