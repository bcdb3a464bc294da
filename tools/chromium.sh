#!/bin/sh
# The page of `menura data view` is tested in headless Chromium. When there is none, root on Debian or Ubuntu gets it
# installed; anybody else is told the one command. Exit status 1: no browser on this machine.
set -u

has_chromium() {
    command -v chromium >/dev/null 2>&1
}

has_chromium && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "The page's tests need a browser: installing chromium"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1
    has_chromium && exit 0
fi
echo "No chromium here: the page's tests are skipped. To have it: sudo apt-get install -y chromium"
exit 1
