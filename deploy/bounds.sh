#!/usr/bin/env bash
# Run the device's tests with the oldest of everything that pyproject.toml allows, or with the newest there is, in an environment of its own.
# Usage: bounds.sh oldest|newest PYTHON [pytest's arguments]. No PyTorch: teaching is not covered. Why: deploy/decisions/0042.
set -euo pipefail
which=$1 python=$2
shift 2
cd "$(dirname "${BASH_SOURCE[0]}")/.."
venv=.venv/$which
mkdir -p .venv
"$python" -m venv --clear "$venv"
# What the tests themselves need is the newest both times.
mapfile -t wanted < <("$venv/bin/python" - "$which" <<'PYTHON'
import sys
import tomllib

project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = project["optional-dependencies"]
for line in (*project["dependencies"], *extras["plc"]):
    name, bound = line.split(",")[0].split(">=")
    print(f"{name}=={bound}" if sys.argv[1] == "oldest" else line)
tools = ("pytest", "hypothesis", "cpppo", "packaging")
print(*(line for line in extras["dev"] if line.startswith(tools)), sep="\n")
PYTHON
)
echo "${wanted[*]}"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check "${wanted[@]}"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps -e .
"$venv/bin/python" -m pip check
OMP_NUM_THREADS=1 "$venv/bin/python" -m pytest "$@"
