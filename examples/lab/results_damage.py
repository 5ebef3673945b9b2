"""Sections of docs/results.md about hostile inputs, kills and damaged files."""

from __future__ import annotations

from report import read_report, sources, table

MEBIBYTE = 2**20


def hostile() -> str:
    """Hostile data files and images."""
    report = read_report("hostile_data")
    names = ("inputs", "held", "typed errors", "read", "anything else")
    rows = [(name, report[name]) for name in (*names, "most seconds of processor time", "most MiB above the start")]
    doors = ", ".join(f"{door} {count}" for door, count in report["by door"].items())
    return f"""## Hostile data files and images

Every value of every file of a set replaced by awkward ones, files cut and flipped, pipes, devices and links where files
belong, and the known bombs; each in a process of its own ({doors}). An input holds if it ends in a typed error or is
read, within 5 seconds of processor time and 1 GiB above the process's start.

{table(("", ""), rows)}

{sources("hostile_data")}"""


def hostile_models() -> str:
    """Hostile checkpoints and texts, and memory over many steps."""
    checkpoints, texts, memory = (read_report(name) for name in ("hostile_checkpoints", "hostile_texts", "memory"))
    kinds = ("accepted", "typed", "fell")
    doors = [(door, *(count.get(kind, 0) for kind in kinds)) for door, count in checkpoints["doors"].items()]
    families = [
        (f"`{name}`", *(count.get(kind, 0) for kind in ("encoded", "typed error")))
        for name, count in texts["families"].items()
    ]
    grown = [
        (f"{memory[what]['steps']} {what}", *(memory[what][f"MiB, {part} quarter"] for part in ("first", "last")))
        for what in ("groundings", "loads")
    ]
    return f"""## Hostile checkpoints and texts

{checkpoints["cases"]} copies of embedded models with one thing changed, each in a process of its own: a field set to a
hostile value, a damaged file, a pipe or device in place of one, a template that does not end. Every one has to give
maps or a typed error within 5 seconds and 1 GiB; {len(checkpoints["fell"])} did not. The most that any took were
{checkpoints["most processor seconds"]} s of processor time and {checkpoints["most MiB above the start"]} MiB.

{table(("what was changed", "accepted, finite maps", "typed error", "fell"), doors)}

{texts["texts"]:,} texts of control tokens, surrogates, combining, right-to-left and zero-width characters:
{len(texts["faults"])} moved the image's tokens, gained a control token or raised an error without a type.

{table(("family", "encoded", "typed error"), families)}

Memory of one process, in MiB:

{table(("steps", "first quarter", "last quarter"), grown)}

{sources("hostile_checkpoints", "hostile_texts", "memory")}"""


def interruptions() -> str:
    """Commands that were killed, and files in which bits were flipped."""
    kills, flips = read_report("kills")["kills"], read_report("flipped_bits")
    names = [name for name in next(iter(kills.values())) if not name.startswith("file events")]
    checking = flips["checking"]
    return f"""## Killed and damaged

Every trial is a process that was ended by SIGKILL, once or twice, at a random time or right before a file event. The
same command then ran to its end; equal means the same bytes of every file and the same scalars in TensorBoard.

{table(("", *names), [(command, *(row[name] for name in names)) for command, row in kills.items()])}

Single bits flipped in what an earlier command wrote; noticed means that the next command ends with one line that names
the file and says how to go on:

{table(("", "flipped", "noticed"), [(kind, row["flipped"], row["noticed"]) for kind, row in flips["flips"].items()])}

Comparing a cache of {checking["bytes of the cache"] / MEBIBYTE:,.0f} MiB with its digests, once per run, takes
{checking["seconds of checking, once per run"]:.2g} s, {checking["share of one epoch"]:.1%} of one epoch.

{sources("kills", "flipped_bits")}"""
