"""The section of docs/results.md about runs over many images."""

from __future__ import annotations

from report import read_report, sources, table


def bulk() -> str:
    """Many images in one process, in several, after kills and over Ray."""
    report = read_report("bulk")
    ray, seconds, equal = report["ray"], report["seconds"], report["equal bytes"]
    columns, shards = ray["columns"], ray["shards"]
    of_two = (report["results"], report["failed"], _yes(equal["two processes"]), seconds["two processes"])
    rows = [
        ("one process", report["results"], report["failed"], "", seconds["one process"]),
        ("two processes", *of_two),
        (
            f"two, one killed at {report['shards when it was killed']} of {report['shards']} shards; then one",
            report["results"],
            report["failed"],
            _yes(equal["killed"]),
            seconds["one process, after the kill"],
        ),
        (
            "Ray, two actors, one killed: shards",
            shards["rows"],
            shards["errors"],
            _yes(shards["equal to one process"]),
            shards["seconds"],
        ),
        (
            "Ray, two actors, one killed: columns",
            columns["maps"],
            columns["errors"],
            "batches are Ray's",
            columns["seconds"],
        ),
    ]
    return f"""## Many images

[`adapters extract`](bulk.md) over {report["images"]:,} images of which one is damaged, with `{report["model"]}` on a
CPU of two cores: a trial of what is lost, not of speed. Seconds are of the whole command, or of the pipeline of Ray
without the start of its cluster; after a kill, of the run that resumed.

{table(("", "results", "failed", "same bytes as one process", "seconds"), rows)}

{sources("bulk")}"""


def _yes(equal: object) -> str:
    return "yes" if equal else "no"
