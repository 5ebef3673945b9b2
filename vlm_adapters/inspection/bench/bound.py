"""The distance to the bound: no pass is faster than its arithmetic, or than its weights can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod

import torch
from torch.utils.flop_counter import FlopCounterMode

from vlm_adapters.inspection.bench.measure import Section, Variant, is_gpu, take_turns
from vlm_adapters.inspection.bench.settings import BenchSettings
from vlm_adapters.inspection.bench.subject import inputs_of, length_of, load_model, plain_pass

_FUSED = (
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,  # noqa: SLF001 - torch has no public names for them
    torch.ops.aten._scaled_dot_product_flash_attention,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_efficient_attention,  # noqa: SLF001
    torch.ops.aten._scaled_dot_product_cudnn_attention,  # noqa: SLF001
)
"""Fused kernels: torch does not count the first, and not every version the others where heads share key heads."""


def measure(settings: BenchSettings) -> Iterator[Section]:
    """FLOPs and bytes of passes, over what the device does of both in a second, against their time."""
    adapter = load_model(settings)
    side, bytes_copied = (8192, 2**30) if is_gpu(settings.device) else (1024, 2**26)
    dtype = adapter.model.dtype
    a, b = (torch.randn(side, side, device=settings.device).to(dtype) for _ in range(2))
    source = torch.empty(bytes_copied, dtype=torch.uint8, device=settings.device)
    target = torch.empty_like(source)
    weights = sum(weight.nbytes for weight in adapter.model.base_model.parameters())
    lengths: set[int] = set()
    for tokens in settings.image_tokens:
        inputs = inputs_of(adapter, tokens)
        if (length := length_of(inputs)) in lengths:
            continue
        lengths.add(length)
        variants = {
            "plain pass": Variant(partial(plain_pass, adapter, inputs)),
            "rows": Variant(partial(adapter.extract, inputs)),
            f"product of {side} x {side}": Variant(partial(torch.mm, a, b)),
            f"copy of {bytes_copied // 2**20} MiB": Variant(partial(target.copy_, source)),
        }
        rows = take_turns(variants, device=settings.device, repeats=settings.repeats, seconds=settings.seconds)
        plain, with_rows, product, copy = (row.seconds or float("inf") for row in rows)
        flops = count_flops(partial(plain_pass, adapter, inputs))
        peak, bandwidth = 2 * side**3 / product, 2 * bytes_copied / copy
        bound = max(flops / peak, weights / bandwidth)
        facts: dict[str, float | int | str] = {
            "FLOPs of the pass": flops,
            "measured FLOP/s": peak,
            "bytes of weights": weights,
            "measured bytes/s": bandwidth,
            "bound, ms": bound * 1e3,
            "plain pass, x of the bound": plain / bound,
            "rows, x of the bound": with_rows / bound,
        }
        yield Section("bound", f"Distance to the bound: {length:,} tokens", tuple(rows), facts, length)


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of the products in `run`; of causal attention all, without leaving out half."""
    with FlopCounterMode(display=False, custom_mapping=dict.fromkeys(_FUSED, _of_attention)) as counter:
        run()
    total: int = counter.get_total_flops()
    return total


def _of_attention(query: Sequence[int], key: Sequence[int], value: Sequence[int], *_: object, **__: object) -> int:
    """Operations of attention from the shapes `(B, n, S, d)`; several heads may share a key head."""
    return 2 * prod(query[:3]) * key[2] * (query[3] + value[3])
