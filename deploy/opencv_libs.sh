#!/usr/bin/env bash
# opencv-python needs libGL and GLib from the system: see whether cv2 imports, and install them (root) or name the command.
# Usage: opencv_libs.sh PYTHON
set -euo pipefail
python=$1

if error=$("$python" -c 'import cv2' 2>&1); then
    exit 0
fi
case $error in
*"cannot open shared object file"*) ;;
*)
    printf 'cv2 (OpenCV) does not import:\n%s\n' "$error" >&2
    exit 1
    ;;
esac

glib=libglib2.0-0
if apt-cache show libglib2.0-0t64 >/dev/null 2>&1; then
    glib=libglib2.0-0t64
fi
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "OpenCV needs libGL and GLib: installing libgl1 $glib"
    DEBIAN_FRONTEND=noninteractive apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends libgl1 "$glib" >/dev/null
    "$python" -c 'import cv2'
else
    echo "OpenCV needs libGL and GLib, which this machine lacks. Run: sudo apt-get install libgl1 $glib" >&2
    exit 1
fi
