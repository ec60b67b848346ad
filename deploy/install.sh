#!/usr/bin/env bash
# Make this Debian or Ubuntu machine a Lineside station: system libraries, user, device environment, units, example files.
# Run it again to upgrade: a release is made whole beside the one in use, tried, and only then put in its place, so one that fails
# changes nothing, a running station keeps the files that it began with, and the way back is one command. No file in /etc/lineside
# is ever overwritten.
set -euo pipefail
umask 022 # the service user must be able to enter what root makes here, whatever root's own umask is

usage() {
    cat <<'TEXT'
Usage: deploy/install.sh [--headless | --window] [--extras LIST] [--wheel FILE | --wheels DIR] [--unpinned]
                         [--python PYTHON] [--prefix DIR] [--dry-run]
       deploy/install.sh --rollback [--prefix DIR]

  --headless       opencv-python-headless instead of opencv-python: no libGL needed, no window (`lineside overlay`
                   then only writes snapshots)
  --window         opencv-python (the default, and the way back from --headless)
  --extras LIST    further extras of Lineside, with commas: cameras, stream, train. PLC protocols are always there. An upgrade keeps
                   --headless and --extras as they were unless they are named again (--extras '' for none)
  --wheel FILE     install this wheel; without it, the checkout that this script lies in
  --wheels DIR     install from these wheels alone, Lineside's own and all that it needs (deploy/it.md makes them), and ask no network
  --unpinned       the newest of everything that Lineside works with, or what --wheels has. Without it, the very files whose versions
                   and hashes stand in deploy/constraints/ are installed, and any other is refused; what the extra train adds is never pinned
  --python PYTHON  the Python to use, 3.11 to 3.13 (default: python3)
  --prefix DIR     put everything below DIR instead of / and leave the running system alone: no packages, no user, no
                   systemctl. For a look: to build an image, run this script inside of it (chroot DIR deploy/install.sh)
  --dry-run        say what would be done
  --rollback       take the release before this one again; a second time, and the newer one is back
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_tree=$(dirname "$here")
headless="" extras=unsaid prefix="" wheel="" wheels="" python=python3 dry=no rollback=no pinned=yes

die() { echo "install.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --headless) headless=yes ;;
    --window) headless=no ;;
    --dry-run) dry=yes ;;
    --unpinned) pinned=no ;;
    --rollback) rollback=yes ;;
    --wheel | --wheels | --python | --prefix | --extras)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in --wheel) wheel=$2 ;; --wheels) wheels=$2 ;; --python) python=$2 ;; --prefix) prefix=${2%/} ;; --extras) extras=$2 ;; esac
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
if [ -n "$wheels" ]; then
    [ -z "$wheel" ] || die "--wheel and --wheels: expected one of them"
    shopt -s nullglob
    own=("$wheels"/lineside-*.whl)
    shopt -u nullglob
    [ ${#own[@]} -eq 1 ] || die "--wheels: expected one lineside-*.whl in $wheels, found ${#own[@]} ${own[*]##*/}"
    wheel=${own[0]}
fi
[ "$dry" = yes ] || [ -n "$prefix" ] || [ "$(id -u)" -eq 0 ] || die "run it as root (sudo deploy/install.sh), or try --dry-run or --prefix DIR"

opt=$prefix/opt/lineside
venv=$opt/venv         # a link to the release in use: units and people know this name
previous=$opt/previous # a link to the one before it
etc=$prefix/etc/lineside
state=$prefix/var/lib/lineside

point() { # $1 becomes a link to $2, at once: whoever opens $1 finds the one or the other, never nothing
    run ln -sfn "$2" "$1.new"
    run mv -T "$1.new" "$1"
}

if [ "$rollback" = yes ]; then
    [ -e "$previous/bin/lineside" ] || die "there is no release before this one in $opt"
    now=$(readlink "$venv") before=$(readlink "$previous")
    point "$venv" "$before"
    point "$previous" "$now"
    [ "$dry" = yes ] || echo "$venv is $before again: $("$venv/bin/lineside" --version)"
    echo "The stations take it at their next start: sudo systemctl restart 'lineside@*'"
    exit 0
fi

command -v "$python" >/dev/null || die "found no $python; name one with --python"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' ||
    die "Lineside needs Python 3.11 to 3.13, $python is $("$python" -V 2>&1)"
was() { sed -n "s/^$1=//p" "$venv/lineside-options" 2>/dev/null || true; } # what the release in use was installed with
headless=${headless:-$(was headless)}
[ "$extras" != unsaid ] || extras=$(was extras)
[[ ,$extras, =~ ^(,(cameras|stream|train|plc)?)*,$ ]] || die "--extras: expected cameras, stream or train (plc is always there), found $extras"

if [ -z "$prefix" ]; then
    if [ -z "${DPKG_MAINTSCRIPT_PACKAGE:-}" ]; then # what deploy/deb.sh makes depends on them, and apt cannot run within apt
        step "system packages"
        packages=("$("$python" -c 'import sys; print(f"python3.{sys.version_info[1]}-venv")')")
        apt-cache show "${packages[0]}" >/dev/null 2>&1 || packages=(python3-venv)
        if [ "$headless" != yes ]; then
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

release=$opt/releases/$(date -u +%Y%m%dT%H%M%SZ)-$$
step "device environment in $release"
abandon() { [ "$dry" = yes ] || rm -rf "$release"; }
trap abandon EXIT # until it is whole
run "$python" -m venv --clear "$release"
pip=("$release/bin/python" -m pip --disable-pip-version-check --quiet)
from=()
[ -z "$wheels" ] || from=(--isolated --no-index --find-links "$wheels")
what=${wheel:-$source_tree}
wanted=plc${extras:+,$extras}
if [ "$pinned" = yes ]; then
    step "what deploy/constraints pins, less opencv-python$([ "$headless" = yes ] || echo -headless)"
    requirements=$release/lineside-requirements.txt
    [ "$dry" = yes ] || "$here/pinned.sh" "$python" "$headless" "$extras" >"$requirements"
    run "${pip[@]}" install "${from[@]}" --require-hashes -r "$requirements"
fi
if [ "$pinned" = yes ] && [[ ,$extras, != *,train,* ]]; then
    run "${pip[@]}" install --no-deps "$what"
elif [ "$headless" = yes ]; then
    # An extra cannot remove opencv-python from the base dependencies, and the two OpenCV wheels unpack into one folder: so Lineside
    # goes in without its dependencies, and they follow less that one.
    run "${pip[@]}" install --no-deps "$what"
    if [ "$dry" = yes ]; then
        echo "would run: $release/bin/python -m pip install the dependencies of lineside[$wanted,headless] less opencv-python"
    else
        mapfile -t requirements < <("$release/bin/python" - "$wanted,headless" <<'PYTHON'
import re
import sys
from importlib.metadata import requires

for line in requires("lineside"):
    requirement, _, marker = (part.strip() for part in line.partition(";"))
    extra = re.search(r"extra == [\"'](\w+)[\"']", marker)
    if (extra is None or extra[1] in sys.argv[1].split(",")) and not re.match(r"opencv-python(?!-headless)", requirement):
        print(requirement)
PYTHON
        )
        "${pip[@]}" install "${from[@]}" --no-warn-conflicts "${requirements[@]}"
    fi
else
    run "${pip[@]}" install "${from[@]}" "$what[$wanted]"
fi
if [ "$dry" = yes ]; then
    echo "would write $release/lineside-options"
else
    "$release/bin/python" -c 'import cv2, openvino, zmq' # what a missing system library would break, before anything rests on it
    "$release/bin/lineside" --version
    printf 'headless=%s\nextras=%s\n' "${headless:-no}" "$extras" >"$release/lineside-options"
fi
trap - EXIT

step "$venv becomes this release"
if [ -d "$venv" ] && [ ! -L "$venv" ]; then # from before releases were kept apart
    run mv "$venv" "$opt/releases/first"
    run ln -sfn releases/first "$venv"
fi
[ ! -L "$venv" ] || point "$previous" "$(readlink "$venv")"
point "$venv" "releases/$(basename "$release")"
for old in "$opt"/releases/*; do
    case $(basename "$old") in
    "$(basename "$release")" | "$(basename "$(readlink "$previous" || echo none)")") ;;
    *) # a station that nobody restarted yet may still need its files
        [ ! -d "$old" ] || grep -qsaF "$old/" /proc/[0-9]*/cmdline || run rm -rf "$old"
        ;;
    esac
done

step "units"
run install -D -m 0644 -t "$prefix/etc/systemd/system" "$source_tree/systemd/lineside@.service" "$source_tree/systemd/lineside.target" \
    "$source_tree/systemd/lineside-metrics@.service"
run install -D -m 0644 -t "$prefix/etc/systemd/user" "$source_tree/systemd/lineside-overlay@.service"
dropin=$prefix/etc/systemd/system/lineside@.service.d/back-off.conf
systemd=$(systemctl --version 2>/dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p' || true)
if [ "${systemd:-0}" -ge 254 ]; then # older ones do not know these keys, and warn of them
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
    [ ! -d /run/systemd/system ] || run systemctl daemon-reload
    ! command -v systemctl >/dev/null || run systemctl enable --quiet lineside.target # in an image that is being built, too
fi

cat <<TEXT

Next:
  1. copy a bundle (lineside-export build ...) to $etc/bundles/widget
  2. edit $etc/station.toml and $etc/recipe.toml
  3. sudo -u lineside $venv/bin/lineside check $etc/station.toml
  4. sudo systemctl enable --now lineside@station
  5. $venv/bin/lineside tail $etc/station.toml
After an upgrade: sudo systemctl restart 'lineside@*'; if it disappoints: $here/install.sh --rollback, and restart
TEXT
