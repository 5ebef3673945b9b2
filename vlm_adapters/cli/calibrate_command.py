"""`adapters calibrate`: which heads of a checkpoint show where things are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vlm_adapters.cli.arguments import (
    AttentionOption,
    DeviceOption,
    DtypeOption,
    JsonOption,
    ModelArgument,
    QuantizationOption,
    output_file,
)
from vlm_adapters.cli.printing import line, print_json, working
from vlm_adapters.errors import OptionError

if TYPE_CHECKING:
    from vlm_adapters.heads.calibrate import CalibrationSet


def command(
    model: ModelArgument,
    *,
    labelled: Annotated[
        int | None, typer.Option("--labelled", help="Scenes whose masks choose the heads; 100 to 500.", min=1)
    ] = None,
    samples: Annotated[int, typer.Option(help="Scenes for choosing heads without masks.", min=1)] = 50,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images, each with a sentence in a .txt file of its name.")
    ] = None,
    criterion: Annotated[Literal["iou", "pointing"], typer.Option(help="With masks, what to maximise.")] = "iou",
    seed: Annotated[int | None, typer.Option(help="Seed of the scenes.", min=0)] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="File of the profile.")] = Path("head_profile.json"),
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
    attn_implementation: AttentionOption = None,
    quantization: QuantizationOption = None,
    as_json: JsonOption = False,
) -> None:
    """Choose the few heads of MODEL with which `adapters ground` makes masks without a decoder.

    Without --labelled no masks are used: the heads are chosen that follow each phrase when the images are turned upside
    down. If no head follows phrases, the profile says so. Beside a checkpoint's files, `head_profile.json` is found by
    itself; elsewhere, give it with --profile.
    """
    from vlm_adapters.heads.calibrate import calibrate
    from vlm_adapters.registry.loading import load_adapter

    data = _data(images, labelled, samples, seed)
    with output_file(out):
        adapter = load_adapter(
            model, device=device, dtype=dtype, attn_implementation=attn_implementation, quantization_config=quantization
        )
        with working(f"Looking at {len(data.prompts)} images from {data.source} ..."):
            profile = calibrate(adapter, data, criterion=criterion)
        profile.write(out)
    if as_json:
        print_json({"file": str(out), **profile.model_dump()})
        return
    line(f"{profile.criterion} on {profile.samples} images from {profile.source}")
    if not profile.heads:
        line(f"No head of {model} follows phrases: the profile says so, and there are no masks without a decoder.")
        line(str(out))
        return
    for head in profile.heads:
        line(f"  layer {head.layer} head {head.head}: {profile.criterion} {head.value:.3f}")
    line(f"A mask is where its map is above {profile.threshold:g} of the way from its median to its peak.")
    line(f"Nothing is found where the peak stands out by less than {profile.least_prominence:.1f} deviations.")
    line(str(out))


def _data(images: Path | None, labelled: int | None, samples: int, seed: int | None) -> CalibrationSet:
    from vlm_adapters.data.formats.captioned import read_captioned
    from vlm_adapters.data.formats.scenes import HELD_OUT_SEED, Scenes
    from vlm_adapters.heads.calibrate import CALIBRATION_SEED, CalibrationSet

    if images is not None:
        if labelled is not None or seed is not None:
            raise OptionError(
                "--labelled and --seed are for synthetic scenes; images of yours have no masks or seed. Leave them out."
            )
        return CalibrationSet(read_captioned(images), None, str(images))
    seed = CALIBRATION_SEED if seed is None else seed
    if seed == HELD_OUT_SEED:
        raise OptionError(f"The scenes of seed {seed} are kept for measuring. Give another seed.")
    return CalibrationSet.of_scenes(Scenes(labelled or samples, seed=seed), seed, labelled=labelled is not None)
