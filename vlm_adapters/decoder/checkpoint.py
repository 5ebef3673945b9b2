"""A decoder's folder: `config.json`, the U-Net's weights, and those of a refiner that was trained with it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from vlm_adapters.data.files import whole_file, write_json
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.decoder.sam.refiner import SAMRefiner
from vlm_adapters.decoder.sam.text_prompt import TextPrompt
from vlm_adapters.decoder.saved import SavedDecoder, SavedRefiner
from vlm_adapters.embedded import embedded_checkpoints
from vlm_adapters.errors import CheckpointError, DecoderError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
REFINER_FILE = "refiner.safetensors"
EMBEDDED_FOLDER = "decoder"
"""Where a backbone's folder keeps the decoder that was trained on it."""


@dataclass(frozen=True)
class StoredDecoder:
    """What a decoder's folder holds.

    Attributes:
        config: Sizes, and the backbone that it was trained on.
        decoder: Weights of the U-Net.
        refiner: Trained weights of the refiner; empty where there is none.
    """

    config: SavedDecoder
    decoder: Mapping[str, Tensor]
    refiner: Mapping[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write the files, each whole, the config last."""
        parts = {WEIGHTS_FILE: self.decoder} | ({REFINER_FILE: self.refiner} if self.refiner else {})
        for name, weights in parts.items():
            with whole_file(folder / name) as temporary:
                # save_file would write a file that its owner alone can read
                temporary.write_bytes(_content(weights))
        write_json(folder / CONFIG_FILE, self.config.model_dump())


def _content(weights: Mapping[str, Tensor]) -> bytes:
    return save({key: tensor.contiguous() for key, tensor in weights.items()})


def sha256_of(weights: Mapping[str, Tensor]) -> str:
    """The digest of the file that tensors are written to, as `sha256sum` prints it."""
    return hashlib.sha256(_content(weights)).hexdigest()


def folder_of(name_or_path: Path) -> Path:
    """The decoder's folder: the one named, that in a backbone's folder, or that of an embedded backbone."""
    folder = embedded_checkpoints().get(str(name_or_path), name_or_path)
    return folder / EMBEDDED_FOLDER if (folder / EMBEDDED_FOLDER / CONFIG_FILE).is_file() else folder


def read_stored(folder: Path) -> StoredDecoder:
    """Read a decoder's folder.

    Raises:
        CheckpointError: It is none, or incomplete.
    """
    try:
        config = SavedDecoder.read(folder / CONFIG_FILE)
        weights = load_file(folder / WEIGHTS_FILE)
        return StoredDecoder(config, weights, load_file(folder / REFINER_FILE) if config.refiner else {})
    except (OSError, ValueError, SafetensorError) as error:
        with_decoder = [name for name, path in embedded_checkpoints().items() if (path / EMBEDDED_FOLDER).is_dir()]
        if not folder.is_dir():
            raise CheckpointError(
                f"There is no decoder {str(folder)!r}: no such folder, and no embedded model with a decoder "
                f"({', '.join(with_decoder) or 'none'}). Give a folder written by GroundedVLM.save_pretrained. "
                "A backbone alone gives masks by its heads: `adapters ground --method heads`."
            ) from error
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        raise CheckpointError(
            f"No decoder can be read from {folder}: "
            f"{'it has no ' + ' and no '.join(missing) if missing else error}. Give a folder written by "
            f"GroundedVLM.save_pretrained, or an embedded model that has one: {', '.join(with_decoder) or 'none'}."
        ) from error


def trained_weights(refiner: SAMRefiner) -> dict[str, Tensor]:
    """The tensors of a refiner that training changes: all but the image encoder's."""
    return {name: tensor.detach() for name, tensor in refiner.named_parameters() if tensor.requires_grad}


def saved_refiner(refiner: SAMRefiner) -> SavedRefiner:
    """What `config.json` says of a refiner."""
    return SavedRefiner(
        encoder=encoder_told(refiner.sam.model.image_encoder),
        use_mask=refiner.use_mask,
        use_box=refiner.use_box,
        use_text=refiner.use_text,
    )


def build_refiner(
    config: SavedRefiner, weights: Mapping[str, Tensor], sam: SegmentAnything, backbone: tuple[int, int]
) -> SAMRefiner:
    """Put trained weights on a Segment Anything model.

    Args:
        config: Of the refiner.
        weights: Of `trained_weights`.
        sam: Holds the image encoder that the refiner was trained with; it becomes the refiner's own.
        backbone: Width and number of layers of the language model.

    Raises:
        DecoderError: The model is another than the refiner was trained with, or the weights do not fit.
    """
    if (found := encoder_told(sam.model.image_encoder)) != config.encoder:
        raise DecoderError(
            f"The refiner was trained with the image encoder {config.encoder}, and the Segment Anything model given "
            f"has {found}. Give the checkpoint that it was trained with."
        )
    text = TextPrompt(*backbone, sam.prompt_width) if config.use_text else None
    refiner = SAMRefiner(sam, text, use_mask=config.use_mask, use_box=config.use_box, use_text=config.use_text)
    wanted = {name: tuple(tensor.shape) for name, tensor in trained_weights(refiner).items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if differing := sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name)):
        first = differing[0]
        raise DecoderError(
            f"The refiner's weights do not fit: {len(differing)} tensors differ, the first is {first}, expected "
            f"{wanted.get(first, 'none')}, found {given.get(first, 'none')}. Give the backbone that it was trained on."
        )
    refiner.load_state_dict(dict(weights), strict=False)  # the image encoder's are the model's own
    return refiner


def encoder_told(encoder: nn.Module) -> str:
    """An image encoder in words, by which another one is noticed."""
    return f"{type(encoder).__name__} of {sum(tensor.numel() for tensor in encoder.parameters()):,} weights"
