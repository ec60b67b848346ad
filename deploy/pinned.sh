#!/usr/bin/env bash
# Print what of deploy/constraints/ a station's environment is made of: requirements of pip, each with its version and the hashes of its files.
# Usage: pinned.sh PYTHON [yes|no: headless] [EXTRAS, with commas]. Why: deploy/decisions/0042.
set -euo pipefail
python=$1 headless=${2:-no} extras=${3:-}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
minor=$("$python" -c 'import sys; print(sys.version_info[1])')
file=$here/constraints/py3$minor.txt
[ -f "$file" ] || { echo "pinned.sh: expected the pinned versions in $file, found no such file; --unpinned does without" >&2; exit 2; }

# The files hold both OpenCV wheels, which may never be installed together (decision 2), and what the extras cameras and stream ask for.
less=opencv-python-headless
[ "$headless" != yes ] || less=opencv-python
[[ ,$extras, == *,cameras,* ]] || less="$less|pypylon|harvesters|genicam"
[[ ,$extras, == *,stream,* ]] || less="$less|av"
sed -E "/^($less)==/,/[^\\\\]\$/d" "$file" # an entry ends with the line that does not go on
