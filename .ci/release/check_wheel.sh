#!/usr/bin/env bash
# Install the wheel without extras and without torch on every Python here that it admits: the plugins are listed all the
# same, with what each of them needs.
set -euo pipefail
wheel=$(realpath "$1")
cd "$(dirname "$0")/../.."
clean=$(mktemp -d)
trap 'rm -rf "$clean"' EXIT
tried=0
for minor in 11 12 13 14; do
  for python in $(command -v "python3.$minor") "$HOME"/.pyenv/versions/3."$minor".*/bin/python; do
    "$python" -c '' 2> /dev/null || continue
    "$python" -m venv --clear "$clean/venv"
    "$clean/venv/bin/pip" install --quiet --constraint .ci/constraints.txt lazy-loader pluggy typer rich
    "$clean/venv/bin/pip" install --quiet --no-deps "$wheel"
    "$clean/venv/bin/python" -c 'import importlib.util as u, sys; sys.exit("torch is here" if u.find_spec("torch") else 0)'
    "$clean/venv/bin/adapters" list > /dev/null
    "$clean/venv/bin/adapters" list --json | "$clean/venv/bin/python" -c '
import json, platform, sys
states = {entry["name"]: entry["state"] for entry in json.load(sys.stdin)}
assert states["qwen2_5_vl"] == "needs vlm-adapters[qwen]", states
print(f"The wheel lists {len(states)} adapters on Python {platform.python_version()}.")'
    tried=$((tried + 1))
    break
  done
done
[ "$tried" -gt 0 ] || { echo "No Python from 3.11 to 3.14 is here." >&2; exit 1; }
