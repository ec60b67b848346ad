#!/usr/bin/env bash
# Write deploy/constraints/py3XX.txt anew: every package of a station with its version and the hashes of its files. Why: deploy/decisions/0042.
# Usage: constraints.sh [--upgrade] PYTHON...   each file needs its own Python; --upgrade takes the newest of everything, without it what is
# pinned stays and what pyproject.toml asks for in addition is added.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
upgrade=()
if [ "${1:-}" = --upgrade ]; then
    upgrade=(--upgrade)
    shift
fi
[ $# -gt 0 ] || { echo "constraints.sh: expected Pythons, found none: constraints.sh [--upgrade] python3.11 python3.12 python3.13" >&2; exit 2; }

tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
cd "$here/.."
for python in "$@"; do
    minor=$("$python" -c 'import sys; print(sys.version_info[1])')
    file=deploy/constraints/py3$minor.txt
    "$python" -m venv --clear "$tools/venv"
    "$tools/venv/bin/python" -m pip install --quiet --disable-pip-version-check pip-tools
    "$tools/venv/bin/pip-compile" --quiet --generate-hashes --extra plc --extra cameras --extra stream --extra headless --strip-extras "${upgrade[@]}" \
        --no-header --no-annotate --no-emit-index-url --no-emit-find-links --output-file "$file" pyproject.toml
    echo "$file: $(grep -c == "$file") packages"
done
