#!/bin/sh
# Install what the tests need and pip cannot give: the Mosquitto broker.
#
# On Debian and its kin it is installed by apt-get, as root or by sudo. The tests start their own
# brokers, on free ports. Where it cannot be installed, the tests that need it are skipped with
# that reason; in CI (CI=true) this is an error instead.
set -eu

# Debian keeps the broker in a folder that only root has on its path.
PATH=$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin
if command -v mosquitto >/dev/null 2>&1; then
    exit 0
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    [ -t 0 ] || as_root='sudo -n' # nobody is there to type a password
fi
if command -v apt-get >/dev/null 2>&1 && { [ -z "$as_root" ] || command -v sudo >/dev/null 2>&1; }; then
    printf 'setup-tests: installing mosquitto by apt-get\n'
    export DEBIAN_FRONTEND=noninteractive
    if $as_root apt-get -qq update && $as_root apt-get -qq install -y --no-install-recommends mosquitto >/dev/null; then
        exit 0
    fi
fi

printf 'setup-tests: Mosquitto is missing and could not be installed. Install the package "mosquitto" (apt-get, dnf, apk, brew) and run make again.\n' >&2
[ "${CI:-}" = true ] && exit 1
printf 'setup-tests: going on without it; the tests that need a broker are skipped.\n' >&2
