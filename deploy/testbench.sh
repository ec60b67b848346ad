#!/usr/bin/env bash
# What the tests of cameras, PLCs and stations need from the system: Aravis with its fake GigE Vision camera, a GStreamer RTSP server, a Modbus
# server and client that are not ours (libmodbus, mbpoll), Prometheus' own opinion of metrics and alerts (promtool), a clock that is wrong
# (faketime), a screen for the operator's window (Xvfb). With root and apt-get it is installed; otherwise this says the command, and those tests are skipped with a reason. A station
# needs libaravis-0.8-0 at most.
set -euo pipefail
packages=(
    aravis-tools-cli aravis-tools iproute2
    gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly python3-gi
    libmodbus-dev mbpoll gcc pkg-config
    prometheus faketime
    xvfb xdotool imagemagick
)

command -v dpkg-query >/dev/null || { echo "testbench: not a Debian or Ubuntu; tests without their parts are skipped" >&2; exit 0; }
missing=()
for package in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "testbench: installing ${missing[*]}"
    { DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null; } ||
        echo "testbench: could not install them; tests without their parts are skipped" >&2
else
    echo "testbench: some tests are skipped. For them: sudo apt-get install ${missing[*]}" >&2
fi
