"""Put the support matrix of plugins/support.json into the README, between its two marks: `make matrix` runs this."""

from __future__ import annotations

import json
import re
from pathlib import Path

from vlm_adapters.testing import CheckResult
from vlm_adapters.testing.matrix import AdapterReport, markdown

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- adapters check --all -->\n", "<!-- end -->"


def main() -> None:
    """Read the reports, and write the README."""
    reports = [
        AdapterReport(
            report["adapter"],
            tuple(CheckResult(**result) for result in report["results"]),
            report.get("versions", {}),
        )
        for report in json.loads((ROOT / "plugins" / "support.json").read_text(encoding="utf-8"))
    ]
    page = ROOT / "README.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: BEGIN + markdown(reports) + END, text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
