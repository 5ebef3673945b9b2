"""The section of docs/results.md on presence: whether a decoder knows that a phrase is not in the image."""

from __future__ import annotations

from collections.abc import Sequence

from report import read_report, sources, table

NUMBERS = (
    "present phrases",
    "absent phrases",
    "before: no-target accuracy",
    "before: AUROC of the mask's score",
    "without training: AUROC",
    "AUROC",
    "no-target accuracy",
    "present things lost",
    "calibration error",
    "before: mean IoU of present things",
    "mean IoU of present things",
    "swapped images: no-target accuracy",
    "absent: no scene has",
)


def presence(models: Sequence[str]) -> str:
    """Whether the decoders know that a phrase is not in the image."""
    names = [f"{model}_presence" for model in models]
    reports = [read_report(name) for name in names]
    rows = [(name, *(report[name] for report in reports)) for name in NUMBERS]
    rows += [
        (f"{kind}: {number}", *(report["by kind"][kind][number] for report in reports))
        for kind in reports[0]["by kind"]
        for number in ("AUROC", "no-target accuracy")
    ]
    return f"""## Whether it is there

Held-out hard scenes, whose sentences also name what is not there. *Before*: the same masks without the presence head.
*Without training*: the least probability that the backbone gives to a token of the phrase after its first. *No-target
accuracy*: the share of absent phrases without a mask; *lost*: the share of present ones that count as absent. The head
was calibrated on scenes of another seed. *Swapped images*: scenes with the image of the next one, and what of their
captions is not in it. *No scene has*: seven phrases such as "the moon", each asked alone.

{table(("", *(f"`{model}`" for model in models)), rows)}

The aims were an AUROC of 0.97, a no-target accuracy of 0.90 while at most 3 % of what is there is lost, and a
calibration error of 0.05. What is missed are phrases that are nearly right: of a wrong relation, or a wrong shape.

`python examples/lab/train_tiny_decoder.py --model NAME` makes decoder and head anew, with `--presence-only` the head.

{sources(*names)}"""
