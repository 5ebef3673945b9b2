"""The section of docs/results.md about images that embedded models do not know."""

from __future__ import annotations

from report import read_report, sources, table


def unlike_scenes() -> str:
    """How often a scene is taken for something else, and something else for a scene."""
    counts = read_report("unlike_scenes")["counts"]
    of_scenes = [one for one in counts if one["are_scenes"]]
    of_others = [one for one in counts if not one["are_scenes"]]
    rows = [(one["name"], f"{one['images']:,}", one["wrong"]) for one in (*of_scenes, *of_others)]
    alarms, misses = (sum(one["wrong"] for one in some) for some in (of_scenes, of_others))
    scenes, others = (sum(one["images"] for one in some) for some in (of_scenes, of_others))
    return f"""## Images that the tiny models do not know

The embedded models [warn about other images](grounding.md#images-that-the-tiny-models-do-not-know).
The pixels decide: of {scenes:,} held-out scenes, in several sizes and files, {alarms} wrongly caused a warning; of
{others:,} other images {misses} wrongly caused none. The thresholds were chosen on scenes of other seeds, images of
other packages and drawings of other seeds.

{table(("images", "of them", "wrong"), rows)}

{sources("unlike_scenes")}"""
