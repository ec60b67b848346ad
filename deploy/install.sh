#!/usr/bin/env bash
# Make this Debian or Ubuntu machine a Lineside station: system libraries, user, device environment, units, example files.
# Run it again to upgrade; it never overwrites a file in /etc/lineside.
set -euo pipefail
umask 022 # the service user must be able to enter what root makes here, whatever root's own umask is

usage() {
    cat <<'TEXT'
Usage: deploy/install.sh [--headless] [--wheel FILE] [--python PYTHON] [--prefix DIR] [--dry-run]

  --headless       opencv-python-headless instead of opencv-python: no libGL needed, no window (`lineside overlay`
                   then only writes snapshots)
  --wheel FILE     install this wheel; without it, the checkout that this script lies in
  --python PYTHON  the Python to use, 3.11 to 3.13 (default: python3)
  --prefix DIR     put everything below DIR instead of / and leave the running system alone: no packages, no user, no
                   systemctl. For a look: to build an image, run this script inside of it (chroot DIR deploy/install.sh)
  --dry-run        say what would be done
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_tree=$(dirname "$here")
headless=no prefix="" wheel="" python=python3 dry=no

die() { echo "install.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --headless) headless=yes ;;
    --dry-run) dry=yes ;;
    --wheel | --python | --prefix)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in --wheel) wheel=$2 ;; --python) python=$2 ;; --prefix) prefix=${2%/} ;; esac
        shift
        ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
    esac
    shift
done

run() {
    if [ "$dry" = yes ]; then
        printf 'would run:'
        printf ' %q' "$@"
        echo
    else
        "$@"
    fi
}
step() { echo "- $*"; }

[ -z "$wheel" ] || [ -f "$wheel" ] || die "--wheel: found no file $wheel"
[ "$dry" = yes ] || [ -n "$prefix" ] || [ "$(id -u)" -eq 0 ] || die "run it as root (sudo deploy/install.sh), or try --dry-run or --prefix DIR"
command -v "$python" >/dev/null || die "found no $python; name one with --python"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' ||
    die "Lineside needs Python 3.11 to 3.13, $python is $("$python" -V 2>&1)"

venv=$prefix/opt/lineside/venv
etc=$prefix/etc/lineside
state=$prefix/var/lib/lineside

if [ -z "$prefix" ]; then
    step "system packages"
    packages=("$("$python" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")')")
    apt-cache show "${packages[0]}" >/dev/null 2>&1 || packages=(python3-venv)
    if [ "$headless" = no ]; then
        if apt-cache show libglib2.0-0t64 >/dev/null 2>&1; then
            packages+=(libgl1 libglib2.0-0t64)
        else
            packages+=(libgl1 libglib2.0-0)
        fi
    fi
    missing=()
    for package in "${packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'install ok installed' || missing+=("$package")
    done
    if [ ${#missing[@]} -gt 0 ]; then
        run apt-get -qq update
        run env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"
    fi

    step "user lineside, in the groups that own cameras (video) and inference devices (render)"
    for group in video render; do
        getent group "$group" >/dev/null || run groupadd --system "$group"
    done
    if ! getent passwd lineside >/dev/null; then
        run useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin lineside
    fi
    run usermod --append --groups video,render lineside
fi

step "device environment in $venv"
# One that another Python left, or without pip (its python3-venv was missing), is made anew.
"$venv/bin/python" -m pip --version >/dev/null 2>&1 || run "$python" -m venv --clear "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)
what=${wheel:-$source_tree}
remove() { # the two OpenCV wheels unpack into one folder: with $1 goes the other, or its files would be damaged
    local package
    "${pip[@]}" show "$1" >/dev/null 2>&1 || return 0
    for package in opencv-python opencv-python-headless; do
        if "${pip[@]}" show "$package" >/dev/null 2>&1; then
            run "${pip[@]}" uninstall --yes "$package"
        fi
    done
}
if [ "$headless" = yes ]; then
    # An extra cannot remove opencv-python from the base dependencies, so Lineside goes in without them, and they follow less that one.
    remove opencv-python
    run "${pip[@]}" install --upgrade --force-reinstall --no-deps "$what"
    if [ "$dry" = yes ]; then
        echo "would run: $venv/bin/python -m pip install the dependencies of lineside[plc,headless] less opencv-python"
    else
        mapfile -t requirements < <("$venv/bin/python" - <<'PYTHON'
import re
from importlib.metadata import requires

for line in requires("lineside"):
    requirement, _, marker = (part.strip() for part in line.partition(";"))
    extra = re.search(r"extra == [\"'](\w+)[\"']", marker)
    if (extra is None or extra[1] in ("plc", "headless")) and not re.match(r"opencv-python(?!-headless)", requirement):
        print(requirement)
PYTHON
        )
        "${pip[@]}" install --upgrade --no-warn-conflicts "${requirements[@]}"
    fi
else
    remove opencv-python-headless
    run "${pip[@]}" install --upgrade --force-reinstall --no-deps "$what"
    run "${pip[@]}" install --upgrade "$what[plc]"
fi
[ "$dry" = yes ] || "$venv/bin/lineside" --version

step "units"
run install -D -m 0644 -t "$prefix/etc/systemd/system" "$source_tree/systemd/lineside@.service" "$source_tree/systemd/lineside.target"
run install -D -m 0644 -t "$prefix/etc/systemd/user" "$source_tree/systemd/lineside-overlay@.service"
dropin=$prefix/etc/systemd/system/lineside@.service.d/back-off.conf
release=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p' || true)
if [ "${release:-0}" -ge 254 ]; then # older ones do not know these keys, and warn of them
    run install -d -m 0755 "$(dirname "$dropin")"
    if [ "$dry" = yes ]; then
        echo "would write $dropin"
    else
        printf '# Retries start 2 s apart and slow down to one a minute.\n[Service]\nRestartSteps=8\nRestartMaxDelaySec=60\n' >"$dropin"
    fi
fi

step "example station and recipe in $etc (files that are there stay as they are)"
for file in "$here"/examples/*.toml; do
    target=$etc/$(basename "$file")
    [ -e "$target" ] || run install -D -m 0644 "$file" "$target"
done
run install -d -m 0755 "$etc/bundles" "$state"
if [ -z "$prefix" ]; then
    run chown lineside:lineside "$state"
    if [ -d /run/systemd/system ]; then
        run systemctl daemon-reload
        run systemctl enable --quiet lineside.target
    fi
fi

cat <<TEXT

Next:
  1. copy a bundle (lineside-export build ...) to $etc/bundles/widget
  2. edit $etc/station.toml and $etc/recipe.toml
  3. sudo -u lineside $venv/bin/lineside check $etc/station.toml
  4. sudo systemctl enable --now lineside@station
  5. $venv/bin/lineside tail $etc/station.toml
After an upgrade: sudo systemctl restart 'lineside@*'
TEXT
