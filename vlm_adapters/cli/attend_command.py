"""`adapters attend`: where the phrases of a sentence look."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlm_adapters.cli.arguments import (
    DEFAULT_MODEL,
    AnswerOption,
    AskOption,
    AttentionOption,
    DeviceOption,
    DtypeOption,
    ImageOrMany,
    JsonOption,
    ModelOption,
    OutOption,
    PhraseOption,
    QuantizationOption,
    SpanOption,
    Text,
)
from vlm_adapters.cli.bulk import (
    BatchSizeOption,
    ManyImages,
    ShardSizeOption,
    ThreadsOption,
    check_for_many,
    is_of_many,
    prompts_of,
)
from vlm_adapters.cli.printing import line, print_json, working

if TYPE_CHECKING:
    from vlm_adapters.output.attention import ShownPhrase


def command(
    image: ImageOrMany,
    text: Text = None,
    *,
    ask: AskOption = None,
    answer: AnswerOption = None,
    phrase: PhraseOption = None,
    span: SpanOption = None,
    model: ModelOption = DEFAULT_MODEL,
    heads: Annotated[int, typer.Option(help="How many of the heads that follow a phrase best to show.", min=1)] = 6,
    raw: Annotated[bool, typer.Option("--raw", help="Show the attention as extracted, sinks and all.")] = False,
    batch_size: BatchSizeOption = 8,
    shard_size: ShardSizeOption = 64,
    threads: ThreadsOption = 1,
    out: OutOption = Path("attention"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where the phrases of TEXT look in IMAGE: heat maps of the heads that follow them best, and per layer.

    Maps show what a phrase adds to a neutral sentence, without the cells that attract attention whatever is asked
    (sinks), and how reliable they are. Needs no decoder. Writes a PNG per phrase and grid to --out, and at last
    attention.json, which names them; sheets of an earlier run in --out are removed. Without --phrase the text is one
    phrase. With --ask the model's answer is shown, by the tokens that it wrote; see `adapters ground --help`.

    Of many images it writes shards of parquet to --out, a row per phrase and grid with its map, and no pictures; the
    same command resumes. On several GPUs: accelerate launch -m vlm_adapters attend ...
    """
    from vlm_adapters.cli.asked import Asked, print_answer
    from vlm_adapters.data.locks import locked_folder
    from vlm_adapters.output.attention import write_attention
    from vlm_adapters.registry.loading import load_adapter

    options: dict[str, Any] = {
        "dtype": dtype,
        "attn_implementation": attn_implementation,
        "quantization_config": quantization,
    }
    if is_of_many(image):
        from vlm_adapters.bulk import Attend

        many = ManyImages(prompts_of(image, text, phrase, span), out, batch_size, shard_size, threads)
        check_for_many(many.source, ask, answer)
        many.run(lambda found: Attend(model, heads=heads, raw=raw, device=found, **options), device, as_json=as_json)
        return
    asked = Asked.of(image, text, ask=ask, answer=answer, phrase=phrase, span=span)  # mistakes show before the model
    with locked_folder(out):
        with working(f"Loading {model} ..."):
            adapter = load_adapter(model, device=device, **options)
        with working("Answering ..."):
            prompt = asked.prompt_for(adapter)
        with working(f"Drawing {len(prompt.phrases)} phrases, into {out} ..."):
            report = write_attention(adapter, prompt, out, heads=heads, raw=raw)
    if as_json:
        print_json(report)
        return
    print_answer(report["answer"])
    for found in report["phrases"]:
        heads_text = ", ".join(f"{head['layer']}.{head['head']}" for head in found["heads"])
        line(f"{found['phrase']}: heads that follow it best (layer.head) {heads_text}")
        line(f"  reliability {_reliability(found)}")
        line(f"  {found['file']}")


def _reliability(found: ShownPhrase) -> str:
    values = found["reliability"]
    return (
        f"{values['level']} ({values['value']:.2f}): agreement of heads {values['agreement']:.2f}, "
        f"{values['on_sinks']:.0%} of attention on {len(found['sinks'])} sinks, "
        f"difference from a neutral sentence {values['difference']:.2f}"
    )
