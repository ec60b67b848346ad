#!/usr/bin/env bash
# systemd's own opinion of the unit files, without installing them: the programs they start need not exist on this machine.
set -euo pipefail
cd "$(dirname "$0")/../systemd"

if ! command -v systemd-analyze >/dev/null; then
    echo "systemd units: skipped, this machine has no systemd-analyze"
    exit 0
fi
copies=$(mktemp -d)
trap 'rm -rf "$copies"' EXIT
for unit in *.service *.target; do
    # A template is verified as an instance of itself.
    sed 's|/opt/lineside/venv/bin/lineside|/bin/true|' "$unit" >"$copies/${unit/@./@line-1.}"
done
mkdir "$copies/lineside@line-1.service.d"
cp ../deploy/examples/cpus.conf "$copies/lineside@line-1.service.d"
verify() {
    local said
    said=$(XDG_RUNTIME_DIR="$copies" systemd-analyze verify --man=no --recursive-errors=one "$@" 2>&1) || { printf '%s\n' "$said" >&2; exit 1; }
    if [ -n "$said" ]; then # a warning is an exit code of 0 and a line
        printf '%s\n' "$said" >&2
        exit 1
    fi
}
verify "$copies/lineside@line-1.service" "$copies/lineside-metrics@line-1.service" "$copies/lineside.target"
verify --user "$copies/lineside-overlay@line-1.service"
# 0 is locked up, 10 is wide open; a station needs cameras, the network and OpenVINO's own generated code.
systemd-analyze security --offline=true --threshold=19 "$copies/lineside@line-1.service" >/dev/null || {
    echo "lineside@.service: its sandbox got weaker; see: systemd-analyze security --offline=true" >&2
    exit 1
}
systemd-analyze security --offline=true --threshold=15 "$copies/lineside-metrics@line-1.service" >/dev/null || {
    echo "lineside-metrics@.service: its sandbox got weaker; see: systemd-analyze security --offline=true" >&2
    exit 1
}
echo "systemd units: verified"
