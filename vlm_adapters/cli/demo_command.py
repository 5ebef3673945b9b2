"""`adapters demo`: grounding at a glance, offline, by an embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlm_adapters.cli.arguments import DEFAULT_MODEL, OutOption, PhraseOption, phrases_of
from vlm_adapters.cli.completion import model_names
from vlm_adapters.cli.printing import line
from vlm_adapters.cli.tables import print_grounding
from vlm_adapters.errors import PromptError


def command(
    image: Annotated[str | None, typer.Argument(metavar="IMAGE", help="An image of yours, grounded too.")] = None,
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A sentence about it.")] = None,
    *,
    phrase: PhraseOption = None,
    model: Annotated[
        str, typer.Option("--model", "-m", help="An embedded model.", autocompletion=model_names)
    ] = DEFAULT_MODEL,
    scene: Annotated[int, typer.Option(help="Which held-out scene to ground.", min=0)] = 0,
    out: OutOption = Path("demo_output"),
) -> None:
    """Ground a synthetic scene, whose true masks are known, and an image of yours if you give one.

    The phrases of your sentence are the coloured shapes in it ("a red circle with a white dot"), unless you give others
    with --phrase.

    Writes scene.png and image.png: the sentence with its phrases in colours, and their heat maps and masks.
    """
    from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes, named_shapes
    from vlm_adapters.data.locks import locked_folder
    from vlm_adapters.evaluation.metrics import mask_iou
    from vlm_adapters.grounding.decoded import GroundedVLM
    from vlm_adapters.images import load_image
    from vlm_adapters.output.figures import grounding_figure
    from vlm_adapters.output.render import write_png
    from vlm_adapters.prompt import Prompt

    prompts = []
    if image is not None:
        opened = load_image(image)
        if text is None:
            raise PromptError(f"{image} has no sentence. Give one after the image, in quotes.")
        prompts = [Prompt.describe(opened, text, phrases_of(text, phrase, None) if phrase else named_shapes(text))]
    with locked_folder(out):
        vlm = GroundedVLM.from_pretrained(model)
        sample = Scenes(1, seed=HELD_OUT_SEED, first=scene)[0]
        order = sorted(range(len(sample.phrases)), key=lambda index: sample.phrases[index].start)
        in_order = Prompt.describe(sample.image, sample.text, [sample.phrases[index] for index in order])
        truth = [sample.masks[index] for index in order]
        grounding, *others = vlm.ground_all([in_order, *prompts])
        ious = [mask_iou(found.mask, mask) for found, mask in zip(grounding.phrases, truth, strict=True)]
        line(f"{model} on a held-out scene: {sample.text}")
        write_png(grounding_figure(grounding, truth), out / "scene.png")
        print_grounding(grounding, [out / "scene.png"], ious)
        for other in others:
            line()
            line(f"{model} on {image}: {text}")
            write_png(grounding_figure(other), out / "image.png")
            print_grounding(other, [out / "image.png"])
