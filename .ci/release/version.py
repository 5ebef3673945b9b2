"""The version that is built: that of the tag `vX.Y.Z` on this commit, else 0.1.0.dev0; hatchling calls it.

In a source archive, which has no tags, it is the version that the archive was built with.
"""

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT_TAG = "0.1.0.dev0"


def version() -> str:
    """Read the archive's metadata or the tag of the commit."""
    metadata = ROOT / "PKG-INFO"
    if metadata.exists():
        return re.search(r"^Version: (.+)$", metadata.read_text(encoding="utf-8"), re.MULTILINE)[1]
    command = ["git", "-C", str(ROOT), "describe", "--tags", "--exact-match", "--match", "v[0-9]*"]
    try:
        tag = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return WITHOUT_TAG
    return tag.removeprefix("v")
