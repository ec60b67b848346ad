#!/usr/bin/env bash
# Pack this checkout and every wheel that a station needs into one Debian package, for machines without Internet:
# apt install ./lineside_VERSION_ARCHITECTURE.deb there. What it does on the machine is deploy/install.sh, which it carries. Why: deploy/decisions/0020.
set -euo pipefail
umask 022

usage() {
    cat <<'TEXT'
Usage: deploy/deb.sh [--headless] [--extras LIST] [--python PYTHON] [--wheels DIR] [--unpinned] [--out DIR]

  --headless       for machines without a screen: opencv-python-headless, and no libGL (see install.sh)
  --extras LIST    further extras of Lineside, with commas: cameras, stream, train (about 3 GB). PLC protocols are always there
  --python PYTHON  a Python of the version that the stations have, 3.11 to 3.13, with pip (default: python3). The package fits
                   this version and this processor architecture only
  --wheels DIR     pack these wheels, Lineside's own among them, instead of asking pip for them
  --unpinned       pack the newest of everything, not what deploy/constraints/ pins; with --wheels, those need not be what it pins.
                   Without it the machine refuses a wheel whose hash does not stand there (see install.sh)
  --out DIR        where the package is written (default: dist)
TEXT
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source_tree=$(dirname "$here")
headless=no extras="" python=python3 wheels="" out=dist pinned=yes

die() { echo "deb.sh: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
    case $1 in
    --headless) headless=yes ;;
    --unpinned) pinned=no ;;
    --extras | --python | --wheels | --out)
        [ $# -ge 2 ] || die "$1 needs a value"
        case $1 in --extras) extras=$2 ;; --python) python=$2 ;; --wheels) wheels=$2 ;; --out) out=$2 ;; esac
        shift
        ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; die "unknown option $1" ;;
    esac
    shift
done
[[ ,$extras, =~ ^(,(cameras|stream|train|plc)?)*,$ ]] || die "--extras: expected cameras, stream or train (plc is always there), found $extras"
command -v dpkg-deb >/dev/null || die "found no dpkg-deb; a Debian package is built on Debian or Ubuntu"
command -v "$python" >/dev/null || die "found no $python; name one with --python"
minor=$("$python" -c 'import sys; print(sys.version_info[1] if (3, 11) <= sys.version_info[:2] < (3, 14) else "")')
[ -n "$minor" ] || die "Lineside needs Python 3.11 to 3.13, $python is $("$python" -V 2>&1)"

stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
share=$stage/usr/share/lineside
chmod 0755 "$stage" # it becomes the package's own root
mkdir -p "$share/wheels" "$share/deploy" "$stage/DEBIAN" "$stage/usr/share/doc/lineside"

pip=("$python" -m pip --quiet --disable-pip-version-check)
[ "$pinned" = no ] || "$here/pinned.sh" "$python" "$headless" "$extras" >"$stage/pinned.txt"
if [ -n "$wheels" ]; then
    cp "$wheels"/*.whl "$share/wheels/" 2>/dev/null || die "--wheels: found no wheels in $wheels"
else
    [ "$pinned" = no ] || "${pip[@]}" wheel --require-hashes --wheel-dir "$share/wheels" -r "$stage/pinned.txt"
    if [ "$pinned" = yes ] && [[ ,$extras, != *,train,* ]]; then
        "${pip[@]}" wheel --no-deps --wheel-dir "$share/wheels" "$source_tree"
    else
        options=plc${extras:+,$extras}
        [ "$headless" = no ] || options=$options,headless
        "${pip[@]}" wheel --wheel-dir "$share/wheels" "$source_tree[$options]"
    fi
    [ "$headless" = no ] || rm -f "$share"/wheels/opencv_python-*.whl
fi
shopt -s nullglob
own=("$share"/wheels/lineside-*.whl)
[ ${#own[@]} -eq 1 ] || die "expected one wheel of lineside among the wheels, found ${#own[@]} ${own[*]##*/}"
if [ "$pinned" = yes ]; then # as the machine will
    "${pip[@]}" --isolated install --dry-run --ignore-installed --no-index --find-links "$share/wheels" --require-hashes -r "$stage/pinned.txt" ||
        die "expected the very wheels that deploy/constraints pins; --unpinned packs others"
    rm "$stage/pinned.txt"
fi
version=$(basename "${own[0]}" | cut -d- -f2)
architecture=$(dpkg --print-architecture)

mkdir "$share/deploy/constraints"
cp "$here/constraints/py3$minor.txt" "$share/deploy/constraints/"
cp -r "$here/install.sh" "$here/pinned.sh" "$here/examples" "$share/deploy/"
cp -r "$source_tree/systemd" "$share/"
cp "$here/it.md" "$source_tree/README.md" "$stage/usr/share/doc/lineside/"
gzip -9 -n -c "$source_tree/CHANGELOG.md" >"$stage/usr/share/doc/lineside/changelog.gz"
cp "$source_tree/LICENSE" "$stage/usr/share/doc/lineside/copyright" # the wheels carry their own licences

pins=""
[ "$pinned" = yes ] || pins=" --unpinned"
window="libgl1, libglib2.0-0t64 | libglib2.0-0, "
choice=--window
[ "$headless" = no ] || window="" choice=--headless
cat >"$stage/DEBIAN/control" <<TEXT
Package: lineside
Version: $version
Section: science
Priority: optional
Architecture: $architecture
Maintainer: The Lineside authors <none@localhost>
Depends: ${window}passwd, python3 (>= 3.$minor), python3 (<< 3.$((minor + 1))), python3-venv
Installed-Size: $(du -sk "$stage/usr" | cut -f1)
Description: edge runtime for factory inspection cameras
 A station gives every part on the line an accept or reject verdict, writes it to the PLC, journals it and shows it.
 This package carries every wheel that it needs, and asks no network for anything.
TEXT
cat >"$stage/DEBIAN/postinst" <<TEXT
#!/bin/sh
set -e
[ "\$1" = configure ] || exit 0
share=\$DPKG_ROOT/usr/share/lineside
exec "\$share/deploy/install.sh" --wheels "\$share/wheels" --python python3.$minor $choice$pins --extras '$extras' \${DPKG_ROOT:+--prefix "\$DPKG_ROOT"}
TEXT
cat >"$stage/DEBIAN/prerm" <<'TEXT'
#!/bin/sh
set -e
[ "$1" = remove ] && [ -z "$DPKG_ROOT" ] && [ -d /run/systemd/system ] || exit 0
systemctl disable --quiet lineside.target || true
systemctl stop 'lineside@*' || true
TEXT
cat >"$stage/DEBIAN/postrm" <<'TEXT'
#!/bin/sh
set -e
case $1 in
remove)
    rm -rf "$DPKG_ROOT/opt/lineside/venv" "$DPKG_ROOT/opt/lineside/previous" "$DPKG_ROOT/opt/lineside/releases"
    rm -rf "$DPKG_ROOT/etc/systemd/system/lineside@.service.d/back-off.conf"
    rm -f "$DPKG_ROOT/etc/systemd/system/lineside@.service" "$DPKG_ROOT/etc/systemd/system/lineside.target"
    rm -f "$DPKG_ROOT/etc/systemd/system/lineside-metrics@.service" "$DPKG_ROOT/etc/systemd/user/lineside-overlay@.service"
    rmdir --ignore-fail-on-non-empty "$DPKG_ROOT/etc/systemd/system/lineside@.service.d" "$DPKG_ROOT/opt/lineside" 2>/dev/null || true
    [ -n "$DPKG_ROOT" ] || [ ! -d /run/systemd/system ] || systemctl daemon-reload
    ;;
purge) # decisions about parts, and models, are nobody's to delete but their owner's
    for kept in /etc/lineside /var/lib/lineside; do
        [ ! -d "$DPKG_ROOT$kept" ] || echo "lineside: $kept stays as it is; delete it when nobody needs it any more"
    done
    ;;
esac
TEXT
chmod 0755 "$stage"/DEBIAN/p*
(cd "$stage" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
mkdir -p "$out"
package=$out/lineside_${version}_$architecture.deb
dpkg-deb --root-owner-group -Znone --build "$stage" "$package" >/dev/null # wheels are compressed already
echo "$package ($(du -m "$package" | cut -f1) MB) for Python 3.$minor: sudo apt install ./$(basename "$package")"
