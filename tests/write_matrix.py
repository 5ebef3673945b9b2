"""Keep what the conformance suite reported, and write its table into docs/families.md: `make matrix` runs this.

    adapters check --all --json > FILE
    python tests/write_matrix.py FILE

`plugins/support.json` holds of every adapter how each check went, and nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from vlm_adapters.testing import CheckResult
from vlm_adapters.testing.matrix import AdapterReport, markdown

ROOT = Path(__file__).parents[1]
SUPPORT, PAGE = ROOT / "plugins" / "support.json", ROOT / "docs" / "families.md"
BEGIN, END = "<!-- adapters check --all -->\n", "<!-- end -->"


def kept(file: Path) -> dict[str, dict[str, object]]:
    """What the table needs of the output of `adapters check --all --json`."""
    return {
        report["adapter"]: {
            "versions": report["versions"],
            "passed": [result["check"] for result in report["results"] if result["state"] == "passed"],
            **{
                state: {result["check"]: result["reason"] for result in report["results"] if result["state"] == state}
                for state in ("skipped", "failed")
            },
        }
        for report in json.loads(file.read_text(encoding="utf-8"))
    }


def reports() -> list[AdapterReport]:
    """What was kept, as the table takes it."""
    return [
        AdapterReport(
            adapter,
            tuple(
                CheckResult(check, "", state, found[state][check] if state != "passed" else "", 0)
                for state in ("passed", "skipped", "failed")
                for check in found[state]
            ),
            found["versions"],
        )
        for adapter, found in json.loads(SUPPORT.read_text(encoding="utf-8")).items()
    ]


def page() -> str:
    """The page with the table of what was kept."""
    text = PAGE.read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*{END}", lambda _: BEGIN + markdown(reports()) + END, text, flags=re.DOTALL)


if __name__ == "__main__":
    SUPPORT.write_text(json.dumps(kept(Path(sys.argv[1])), indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")
