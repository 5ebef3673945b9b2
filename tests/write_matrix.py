"""Reduce a report of `adapters check --all --json`, given on standard input, to the support matrix: see `make matrix`.

It goes into plugins/support.json and, between its two marks, into docs/families.md. Exits with 1 if a check failed.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from vlm_adapters.testing import CheckResult
from vlm_adapters.testing.matrix import capabilities_of, markdown

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- adapters check --all -->\n", "<!-- end -->"


def main() -> None:
    """Read the report, and write the file and the page."""
    reports = json.load(sys.stdin)
    results = {report["adapter"]: [CheckResult(**result) for result in report["results"]] for report in reports}
    support = {
        "versions": reports[0]["versions"],
        "checks": [result["check"] for result in reports[0]["results"]],
        "adapters": {adapter: capabilities_of(found) for adapter, found in results.items()},
    }
    (ROOT / "plugins" / "support.json").write_text(json.dumps(support, indent=2) + "\n", encoding="utf-8")
    page = ROOT / "docs" / "families.md"
    text = page.read_text(encoding="utf-8")
    matrix = markdown(support["adapters"], support["versions"])
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: BEGIN + matrix + END, text, flags=re.DOTALL), encoding="utf-8")
    failed = [f"{adapter}: {r.check}" for adapter, found in results.items() for r in found if r.state == "failed"]
    sys.exit(f"Checks failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
