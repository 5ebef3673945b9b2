"""Checks of attention rows: their values, reductions and choices."""

from __future__ import annotations

import torch

from vlm_adapters.backbone.protocol import BackboneAdapter
from vlm_adapters.backbone.request import GridRequest
from vlm_adapters.testing.case import AdapterCase
from vlm_adapters.testing.support import (
    by_phrase,
    cells,
    different_prompts,
    maps,
    prompt,
    require,
    require_agrees,
    require_equal,
    require_same,
    run,
)


def check_rows_equal_eager(case: AdapterCase) -> None:
    """The row of every token of a phrase, for every layer and head, equals the eager kernel's in float32."""
    _require_rows(case, case.load())


def check_rows_beside_eager_kernel(case: AdapterCase) -> None:
    """The rows are the same when the model itself runs with the eager kernel."""
    _require_rows(case, case.load(attention="eager"))


def check_predictor_is_one_earlier(case: AdapterCase) -> None:
    """`align="predictor"` gives the row of the token before."""
    _require_rows(case, case.load(), earlier=1)


def check_mean_of_rows(case: AdapterCase) -> None:
    """`reduce="mean"`, the default, gives the mean of a phrase's rows."""
    _require_reduced(case, GridRequest(), "mean")


def check_max_of_rows(case: AdapterCase) -> None:
    """`reduce="max"` gives the maximum of a phrase's rows, cell by cell."""
    _require_reduced(case, GridRequest(reduce="max"), "max")


def check_last_of_rows(case: AdapterCase) -> None:
    """`reduce="last"` gives the row of a phrase's last token."""
    _require_reduced(case, GridRequest(reduce="last"), "last")


def check_row_phrases(case: AdapterCase) -> None:
    """`row_phrases` names the phrase of every entry, with and without reduction."""
    adapter = case.load()
    inputs, rows = run(adapter, prompt(), GridRequest(reduce="none"))
    phrases = tuple(index for index, tokens in enumerate(inputs.phrase_tokens[0]) for _ in tokens)
    require_equal(rows[0].row_phrases, phrases, 'row_phrases with reduce="none"')
    require_equal(run(adapter, prompt())[1][0].row_phrases, tuple(range(len(inputs.phrase_tokens[0]))), "row_phrases")


def check_chosen_layers(case: AdapterCase) -> None:
    """Requested layers are returned, by true index: a list in its order, the last n, negative indices, none."""
    adapter = case.load()
    available = adapter.info.attention_layers
    full = maps(run(adapter, prompt())[1])
    for choice, expected in (
        ([available[0]], available[:1]),
        ([available[-1], available[0]], (available[-1], available[0])),
        ([-1], available[-1:]),
        (1, available[-1:]),
        ((), ()),
    ):
        grids = run(adapter, prompt(), GridRequest(layers=choice))[1]
        require_equal(grids[0].layers, expected, f"Grids.layers of layers={choice}")
        chosen = full[:, [available.index(layer) for layer in expected]]
        require_same(case, maps(grids), chosen, 1e-6, f"attention of layers={choice} (P, L, n, cell)")


def check_chosen_heads(case: AdapterCase) -> None:
    """Requested heads are returned, in the order of the request."""
    adapter = case.load()
    count = adapter.info.num_heads
    full = maps(run(adapter, prompt())[1])
    for choice in ([0], [count - 1, 0], [-1]):
        expected = tuple(head % count for head in choice)
        grids = run(adapter, prompt(), GridRequest(heads=choice))[1]
        require_equal(grids[0].heads, expected, f"Grids.heads of heads={choice}")
        require_same(
            case, maps(grids), full[:, :, list(expected)], 1e-6, f"attention of heads={choice} (P, L, n, cell)"
        )


def check_attention_is_a_share(case: AdapterCase) -> None:
    """Attention is float32, finite and in [0, 1], and sums to at most 1 over the cells of a row."""
    adapter = case.load()
    inputs = adapter.preprocess(different_prompts())
    for grids in adapter.extract(inputs, GridRequest(reduce="none")):
        found = maps(grids)
        require_equal(found.dtype, torch.float32, "dtype of attention")
        require(bool(found.isfinite().all()), "attention: expected finite values, found infinite ones or NaN")
        if not found.numel():
            continue
        low, high, total = found.min().item(), found.max().item(), found.sum(-1).max().item()
        require(low >= 0 and high <= 1 + 1e-6, f"attention: expected values in [0, 1], found {low:.6g} to {high:.6g}")
        require(total <= 1 + 1e-5, f"attention: expected at most 1 on all cells of a row, found {total:.6g}")


def check_precisions_agree(case: AdapterCase) -> None:
    """bfloat16 weights give float32 maps close to those of float32 weights."""
    exact, rough = (maps(run(case.load(dtype=dtype), prompt())[1]) for dtype in (torch.float32, torch.bfloat16))
    require_equal(rough.dtype, torch.float32, "dtype of attention with bfloat16 weights")
    require_equal(tuple(rough.shape), tuple(exact.shape), "shape of attention with bfloat16 weights")
    error = ((rough - exact).abs().sum() / exact.abs().sum()).item()
    require(
        error <= 0.1, f"attention with bfloat16 weights: expected within 10 % of float32 on average, found {error:.1%}"
    )


def check_phrase_alone_and_beside_others(case: AdapterCase) -> None:
    """A phrase has the same map alone and together with other phrases."""
    adapter = case.load()
    together = maps(run(adapter, prompt())[1])
    for index, phrase in enumerate(prompt().phrases):
        alone = maps(run(adapter, prompt(phrases=[phrase.span]))[1])
        require_same(
            case, alone[0], together[index], 1e-6, f"attention of {phrase.text!r} alone and with others (L, n, cell)"
        )


def check_later_text_changes_no_row(case: AdapterCase) -> None:
    """Text after a phrase changes none of its rows (the language model is causal)."""
    adapter = case.load()
    short, long = "a red circle", "a red circle beside a blue star"
    first, second = (maps(run(adapter, prompt(text=text, phrases=[short]))[1]) for text in (short, long))
    require_agrees(case, second, first, 1e-5, "attention of a phrase with more text after it (P, L, n, cell)")


def _require_reduced(case: AdapterCase, request: GridRequest, reduce: str) -> None:
    adapter = case.load()
    inputs, rows = run(adapter, prompt(), GridRequest(reduce="none"))
    expected = by_phrase(maps(rows), inputs.phrase_tokens[0], reduce)
    require_same(case, maps(run(adapter, prompt(), request)[1]), expected, 1e-6, f"{reduce} of rows (P, L, n, cell)")


def _require_rows(case: AdapterCase, adapter: BackboneAdapter, *, earlier: int = 0) -> None:
    oracle = case.load(attention="eager")
    inputs = adapter.preprocess(different_prompts())
    reference = case.reference.run(oracle, inputs)
    request = GridRequest(reduce="none", align="predictor" if earlier else "token")
    for index, grids in enumerate(adapter.extract(inputs, request)):
        layers = grids[0].layers
        require_equal(layers, tuple(sorted(reference.attention)), "layers of a request for all")
        tokens = torch.cat([torch.empty(0, dtype=torch.long), *inputs.phrase_tokens[index]]) - earlier
        expected = reference.rows(index, tokens, cells(grids))
        # sdpa and eager round differently, with the oldest torch by slightly more than 1e-5
        require_agrees(case, maps(grids), expected, 2e-5, f"rows (R, L, n, cell) of prompt {index}")
