"""What a grounded backbone has to do with disks and the hub: saved, loaded, shared."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from torch import nn

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.decoder.checkpoint import EMBEDDED_FOLDER, DecoderCheckpoint, DecoderConfig, decoder_folder
from vlm_adapters.decoder.download import HUB_KEYWORDS, download_decoder, is_on_hub
from vlm_adapters.decoder.model import MaskDecoder, check_sam
from vlm_adapters.decoder.push import push_decoder
from vlm_adapters.decoder.sam.checkpoint import check_sam_file
from vlm_adapters.decoder.sam.model import SegmentAnything
from vlm_adapters.errors import OptionError, UnknownAdapterError
from vlm_adapters.limits import DEFAULT_LIMITS
from vlm_adapters.registry.loading import load_adapter, model_name


class StoredVLM(nn.Module):
    """A backbone and a decoder as they are kept: of the backbone no more than its name.

    Attributes:
        adapter: Gives the grids.
        decoder: Turns them into masks.
    """

    adapter: BackboneAdapter
    decoder: MaskDecoder

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write the trained tensors and `config.json`, which names the backbone and its revision.

        Of a refiner's Segment Anything model the image encoder is not written: it is not trained.
        """
        self.decoder.save(folder, self.adapter.info)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload what `save_pretrained` writes, with a model card, in one commit.

        Args:
            repo_id: Hub id, `owner/name`; the repository is made if it is not there.
            options: Those of `vlm_adapters.decoder.push_decoder`: `evaluation`, `license`, `private`, `revision`,
                `commit_message`, `token`.

        Returns:
            The address of the commit.

        Raises:
            OptionError: The backbone is a folder, which nobody else has, or the evaluation is of another decoder.
            OutputError: The hub does not take it.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return push_decoder(folder, repo_id, **options)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str],
        *,
        adapter: BackboneAdapter | None = None,
        sam: str | os.PathLike[str] | SegmentAnything | None = None,
        device: str | int | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        **options: Any,
    ) -> Self:
        """Load a decoder and, unless it is given, the backbone that it was trained on.

        That is the one in whose folder the decoder lies, else the one that its config names.

        Args:
            name_or_path: An embedded backbone or a backbone's folder with a folder `decoder` in it, a folder written by
                `save_pretrained`, or the hub id of a decoder, tried in this order.
            adapter: A backbone that is loaded already, with which no options of loading one go.
            sam: A Segment Anything model or its checkpoint file. A decoder that was trained with a refiner needs the
                one of its training; masks of another decoder are refined by it untrained.
            device: Where the backbone and the decoder live, as `load_adapter` takes it.
            dtype: Precision of the backbone, as `load_adapter` takes it.
            options: What else `load_adapter` takes: `device_map`, `quantization_config`, `attn_implementation`,
                `token`, ..., and the family's own. `token`, `cache_dir` and `local_files_only` are for a decoder on the
                hub as well, and `revision` is then the decoder's, whose config names that of the backbone.

        Raises:
            CheckpointError: The folder or the repository holds no decoder, or cannot be reached.
            UnknownAdapterError: No installed plugin offers the backbone's adapter.
            OptionError: An option is unknown, or its value cannot be used, or it comes with an adapter.
            DecoderError: The decoder or the refiner does not fit the backbone or the Segment Anything model.
        """
        name, limits = model_name(name_or_path), options.get("limits") or DEFAULT_LIMITS
        options |= {option: value for option, value in (("device", device), ("dtype", dtype)) if value != "auto"}
        on_hub = is_on_hub(name)
        unused = [option for option in options if not (on_hub and option in HUB_KEYWORDS)]
        if adapter is not None and unused:
            raise OptionError(f"The adapter given is loaded already. Leave {', '.join(unused)} out.")
        if on_hub:
            folder = download_decoder(name, limits, **{key: options[key] for key in HUB_KEYWORDS if key in options})
            options.pop("revision", None)
        else:
            folder = decoder_folder(Path(name))
        config = DecoderCheckpoint.read(folder, limits).config  # before the backbone: mistakes show at once
        check_sam(folder, config, sam)
        if sam is not None and not isinstance(sam, SegmentAnything):
            check_sam_file(sam)
        is_within = folder == Path(name) / EMBEDDED_FOLDER and (Path(name) / "config.json").is_file()
        around = Path(name) if is_within else None
        adapter = adapter or _backbone(config, around, options)
        decoder = MaskDecoder.load(folder, adapter.info, sam, limits)
        return cls(adapter, decoder.to(adapter.info.device)).eval()


def _backbone(config: DecoderConfig, around: Path | None, options: dict[str, Any]) -> BackboneAdapter:
    """The backbone around a decoder, or the one that its config names; how it is loaded, the caller alone says."""
    backbone = config.backbone
    checkpoint, revision = (around, None) if around else (backbone.checkpoint, backbone.revision)
    try:
        return load_adapter(checkpoint, **{"revision": revision, **backbone.options, **options})
    except UnknownAdapterError as error:
        if config.plugin is None:
            raise
        raise UnknownAdapterError(
            f"{error} The decoder says that it was trained with the package {config.plugin}. If you trust its author, "
            f"`pip install {config.plugin}`."
        ) from error
