#!/bin/sh
# Simulators draw without a screen through EGL or OSMesa. When neither is there, root on Debian or Ubuntu gets them
# installed; anybody else is told the one command. Exit status 1: no rendering on this machine.
set -u
packages="libegl1 libgl1-mesa-dri"

has_gl() {
    ldconfig -p 2>/dev/null | grep -q -E 'libEGL\.so\.1|libOSMesa\.so'
}

has_gl && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Rendering needs EGL: installing $packages"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $packages; } >/dev/null 2>&1
    has_gl && exit 0
fi
echo "No EGL or OSMesa here: runs go on without pixels and video. To have them: sudo apt-get install -y $packages"
exit 1
