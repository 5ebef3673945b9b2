"""Sections of docs/results.md about hard scenes: masks by kind, and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from report import read_report, sources, table

TALK = (
    "answers right",
    "of a grey image",
    "the likeliest answer",
    "mean IoU in right answers",
    "AP50",
    "mIoU",
    "recall",
)


BEST, OTHERS, LEAST_OF_A_KIND = 0.90, 0.85, 0.80
"""Mean IoU, refined, that was aimed at."""
CONTROLS = (
    ("coarse", "hard scenes, mean IoU of present things"),
    ("images swapped", "hard scenes, images swapped"),
    ("blank images", "hard scenes, blank images"),
)


def hard_scenes(models: Sequence[str]) -> str:
    """Masks of the embedded decoders on hard scenes, by the kind of the phrase."""
    reports = {model: read_report(f"{model}_refiner")["hard scenes"] for model in models}
    first = next(iter(reports.values()))
    rows = [
        (name, *(f"{report[f'mean IoU, {name}']:.3f}" for report in reports.values())) for name in ("coarse", "refined")
    ]
    rows += [
        (f"{kind}, {name}", *(f"{report['mean IoU by kind'][kind][name]:.3f}" for report in reports.values()))
        for kind in first["mean IoU by kind"]
        for name in ("coarse", "refined")
    ]
    controls = [read_report(f"{model}_scenes") for model in models]
    rows += [(f"things that are there, {name}", *(of[key] for of in controls)) for name, key in CONTROLS]
    return f"""## Hard scenes

Mean IoU on {first["scenes"]} [hard scenes](data.md) on which nothing was trained, chosen or calibrated, with
{first["phrases"]:,} phrases: by relation, number, two clauses, of small and occluded things, and of what is not there.
A phrase that is not there counts 1 if it comes out absent, else 0. *Refined*: by a refiner on MobileSAM, trained on
scenes of both kinds. The last rows are coarse masks of the things that are there, with the controls of the first table.

{table(("", *(f"`{model}`" for model in models)), rows)}

{_aims(reports)}

{sources(*(f"{model}_{what}" for what in ("refiner", "scenes") for model in models))}"""


def _aims(reports: Mapping[str, Any]) -> str:
    """What was aimed at, how far the models are from it, and what was tried."""
    reached = [report["mean IoU, refined"] for report in reports.values()]
    kinds = [kind["refined"] for report in reports.values() for kind in report["mean IoU by kind"].values()]
    missed = sum(value < LEAST_OF_A_KIND for value in kinds)
    return f"""The aims were {BEST:.2f} refined for the best model, {OTHERS:.2f} for the others, and
{LEAST_OF_A_KIND:.2f} for every kind. Reached: {max(reached):.2f} for the best, {min(reached):.2f} for the last, and
{missed} of {len(kinds)} kinds are below. Small things cover a cell or two of the grid, and of what is occluded little
is seen: there the coarse masks are poor, and the refiner follows them. Tried, in this order: more layers and finer
patches at as many tokens; heads at three layers that learn where a phrase and its anchor are; a teacher; more steps, at
last on a GPU, which still brought a little (the runs are in the models' cards)."""


def conversation() -> str:
    """What the embedded models answer to questions about hard scenes."""
    report = read_report("conversation")
    models = report["models"]
    rows = [(name, *(of[name] for of in models.values())) for name in TALK]
    kinds = next(iter(models.values()))["by kind"]
    rows += [
        (f"{kind}: {name}", *(of["by kind"][kind][name] for of in models.values()))
        for kind in kinds
        for name in ("questions", "right", "of a grey image", "the likeliest answer")
    ]
    return f"""## Conversations

Two questions in one [conversation](chat.md) about each of {report["scenes"]} held-out hard scenes. An answer is right
if it names all that the true one names, in any order, and nothing else. *Grey image*: the same questions without the
scene. *The likeliest answer*: the most frequent one to every kind of question. The masks of the phrases in the answers
are measured against the things that they name; AP50, mIoU and recall are those of grounded captions, over all answers
that name things.

{table(("", *(f"`{model}`" for model in models)), rows)}

{sources("conversation")}"""
