"""`adapters ground`: masks for the phrases of a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlm_adapters.cli.arguments import (
    DEFAULT_MODEL,
    AnswerOption,
    AskOption,
    AttentionOption,
    DeviceOption,
    DtypeOption,
    GrounderOption,
    ImageOrMany,
    JsonOption,
    KeepAbsentOption,
    LookAgainOption,
    MethodOption,
    OutOption,
    PhraseOption,
    ProfileOption,
    QuantizationOption,
    SamOption,
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
from vlm_adapters.cli.tables import print_grounding


def command(
    image: ImageOrMany,
    text: Text = None,
    *,
    ask: AskOption = None,
    answer: AnswerOption = None,
    phrase: PhraseOption = None,
    span: SpanOption = None,
    model: GrounderOption = DEFAULT_MODEL,
    method: MethodOption = "auto",
    profile: ProfileOption = None,
    sam: SamOption = None,
    keep_absent: KeepAbsentOption = False,
    look_again: LookAgainOption = 0,
    batch_size: BatchSizeOption = 8,
    shard_size: ShardSizeOption = 64,
    threads: ThreadsOption = 1,
    out: OutOption = Path("grounding"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ground the phrases of TEXT in IMAGE and write masks.

    Writes to --out: overlay.png, figure.png, one PNG per mask, masks.png (all masks, indexed), coco.json (COCO results)
    and at last grounding.json (COCO RLE, box, score, presence, state, the names of the files). Masks of an earlier
    grounding in --out are removed. Without --phrase the text is one phrase.

    Presence is the probability that a phrase is in the image. A decoder that learned it gives no mask to a phrase that
    counts as absent.

    With --ask the model answers, and its answer is grounded by the tokens that it wrote. An answer that a model wrote
    elsewhere is given as TEXT, or with the ids of its tokens by --answer. Where there are no ids, it says how far the
    text is from what the model says itself.

    A model without a decoder is asked for boxes if its adapter declares that it can point. Otherwise the masks come
    from the attention of a few heads: those of its profile or, if it has none, of a profile made for the run.

    Of many images it writes shards of JSONL to --out, a line per image as in grounding.json, and no pictures; the same
    command resumes. On several GPUs: accelerate launch -m vlm_adapters ground ...
    """
    from vlm_adapters.cli.asked import Asked, image_id, print_answer
    from vlm_adapters.data.locks import locked_folder
    from vlm_adapters.grounding.load import load_grounder
    from vlm_adapters.output.exports import answer_to_dict, grounding_to_dict
    from vlm_adapters.output.files import write_grounding

    options: dict[str, Any] = {"method": method, "profile": profile, "sam": sam, "dtype": dtype}
    options |= {
        "look_again": look_again,
        "attn_implementation": attn_implementation,
        "quantization_config": quantization,
    }
    if is_of_many(image):
        from vlm_adapters.bulk import Ground

        many = ManyImages(prompts_of(image, text, phrase, span), out, batch_size, shard_size, threads)
        check_for_many(many.source, ask, answer)
        many.run(lambda found: Ground(model, keep_absent=keep_absent, device=found, **options), device, as_json=as_json)
        return
    asked = Asked.of(image, text, ask=ask, answer=answer, phrase=phrase, span=span)  # mistakes show before the model
    _announce_many(len(asked.prompt.phrases))
    with locked_folder(out):
        with working(f"Loading {model} ..."):
            grounder = load_grounder(model, device=device, **options)
        grounder.keeps_absent_masks = keep_absent
        with working("Answering ..."):
            prompt = asked.prompt_for(grounder.adapter)
        if prompt is not asked.prompt:
            _announce_many(len(prompt.phrases))
        with working(f"Grounding {len(prompt.phrases)} phrases ..."):
            grounding = grounder.ground_all([prompt])[0]
        with working(f"Drawing and writing to {out} ..."):
            files = write_grounding(grounding, out, image_id=image_id(image))
    if as_json:
        print_json({**grounding_to_dict(grounding), "files": [str(file) for file in files]})
    else:
        line(f"method: {grounder.description}")
        print_answer(answer_to_dict(grounding.answer, grounding.divergence))
        print_grounding(grounding, files)


def _announce_many(phrases: int) -> None:
    """Say that masks.png will be left out."""
    from vlm_adapters.output.exports import MAX_INDEXED_PHRASES

    if phrases > MAX_INDEXED_PHRASES:
        line(
            f"{phrases} phrases: masks.png, which has room for {MAX_INDEXED_PHRASES}, is left out. Every phrase has a "
            "PNG of its own.",
            err=True,
        )
