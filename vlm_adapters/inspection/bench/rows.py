"""Attention rows against a plain pass, and against `output_attentions`, over the length of the sequence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from math import prod
from pathlib import Path

import torch
from rich.filesize import decimal

from vlm_adapters.backbone.grids import BackboneInputs
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.hf.backbone import TransformersBackbone
from vlm_adapters.inspection.bench.measure import Measurement, Section, Variant, is_gpu
from vlm_adapters.inspection.bench.peaks import memory_facts, time_and_memory
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import inputs_of, kernel, length_of, load_model, plain_pass, windows

EAGER = "output_attentions"


def measure(settings: BenchSettings) -> Iterator[Section]:
    """Time and peak memory for every length of the sequence."""
    adapter = load_model(settings)
    lengths: set[int] = set()
    for tokens in settings.image_tokens:
        inputs = inputs_of(adapter, tokens)
        if (length := length_of(inputs)) in lengths:  # the family makes the same number of tokens of every image
            continue
        lengths.add(length)
        variants = make_variants(settings, tokens)
        needed, free = eager_bytes(adapter, inputs), free_bytes(settings.device)
        skipped = []
        if not settings.eager:
            del variants[EAGER]
        elif needed > free:
            del variants[EAGER]
            skipped = [Measurement(EAGER, note=f"needs about {decimal(needed)}, and {decimal(free)} are free")]
        rows = time_and_memory(make_variants, settings, tokens, variants)
        recorded = sum(len(phrase) for phrase in inputs.phrase_tokens[0])
        title = f"Rows: {length:,} tokens, {recorded} rows of {len(adapter.info.attention_layers)} layers"
        info, cells = adapter.info, sum(len(image) for image in inputs.image_tokens[0])
        numbers = len(inputs.phrase_tokens[0]) * len(info.attention_layers) * info.num_heads * cells
        facts = {
            "rows": recorded,
            "layers": len(info.attention_layers),
            "heads": info.num_heads,
            "image tokens": cells,
            **memory_facts(rows, numbers * 4),
        }
        yield Section("rows", title, (*rows, *skipped), facts, length)


def make_variants(settings: BenchSettings, tokens: int) -> dict[str, Variant]:
    """The pass in all variants; the vision tower runs in all of them as transformers runs it."""
    adapter = load_model(settings)
    inputs = inputs_of(adapter, tokens)
    unpacked = partial(windows, adapter, together=False)
    return {
        "plain pass": Variant(partial(plain_pass, adapter, inputs), unpacked),
        "rows": Variant(partial(adapter.extract, inputs, GridRequest()), unpacked),
        "rows and states": Variant(partial(adapter.extract, inputs, GridRequest(phrase_hidden_layers=None)), unpacked),
        EAGER: Variant(partial(plain_pass, adapter, inputs, output_attentions=True), partial(kernel, adapter, "eager")),
    }


def eager_bytes(adapter: TransformersBackbone, inputs: BackboneInputs) -> int:
    """About how many bytes `output_attentions` takes: the weights of all layers, and what the largest one makes."""
    info, length = adapter.info, length_of(inputs)
    itemsize = adapter.model.dtype.itemsize
    of_layer = info.num_heads * length**2
    making = 3 * itemsize + 4  # scores, the same with the mask, softmax in float32, its copy
    vision = getattr(adapter.model.config, "vision_config", None)
    heads: int = getattr(vision, "num_heads", None) or getattr(vision, "num_attention_heads", None) or 0
    patches = max(
        (prod(shape) for shape in inputs.tensors.get("image_grid_thw", torch.zeros(0, 3)).tolist()), default=0
    )
    language_model = len(info.attention_layers) * of_layer * itemsize + of_layer * making
    return int(max(language_model, heads * patches**2 * making))


def free_bytes(device: str) -> int:
    """Bytes of memory that are free on a device; of a system that does not say, more than there are."""
    if is_gpu(device):
        torch.cuda.empty_cache()  # what torch keeps of other comparisons is free, too
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text(encoding="ascii").splitlines() if meminfo.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable")), sys.maxsize)
