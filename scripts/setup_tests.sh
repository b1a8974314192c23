#!/bin/sh
# Install what the tests need and .venv lacks: sh scripts/setup_tests.sh VENV
#
# By apt-get (Debian and its kin), as root or by sudo: the Mosquitto broker, strace (fault tests strike
# processes at a system call by it), faketime (clocks that are years off), as root mmdebstrap and
# systemd-nspawn (a gateway of its own), qemu-user (an arm64 box), a Rust for WebAssembly; the Go toolchain into VENV. The tests
# start their own brokers, on free ports. What cannot be installed is named; the tests that need it
# are skipped with that reason, and fail in CI (CI=true).
set -eu
venv=${1:-.venv}

# Debian keeps the broker in a folder that only root has on its path.
PATH=$PATH:/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin

has_toolchain() {
    "$venv/bin/python" -c "from edge.sdk.languages import TABLE; TABLE['$1'].find()" 2>/dev/null
}

packages=
command -v mosquitto >/dev/null 2>&1 || packages='mosquitto'
command -v strace >/dev/null 2>&1 || packages="$packages strace"
# The package is installed on a fresh gateway, under systemd as PID 1; that needs root, too.
if [ "$(id -u)" = 0 ]; then
    command -v mmdebstrap >/dev/null 2>&1 || packages="$packages mmdebstrap"
    command -v systemd-nspawn >/dev/null 2>&1 || packages="$packages systemd-container"
    # The frame path is judged on arm64 too, by emulation.
    command -v qemu-aarch64-static >/dev/null 2>&1 || packages="$packages qemu-user-static"
fi
command -v faketime >/dev/null 2>&1 || packages="$packages faketime"
has_toolchain rust || packages="$packages rustc-web rust-web-src"

if [ -n "$packages" ]; then
    as_root=
    if [ "$(id -u)" != 0 ]; then
        as_root=sudo
        [ -t 0 ] || as_root='sudo -n' # nobody is there to type a password
    fi
    if command -v apt-get >/dev/null 2>&1 && { [ -z "$as_root" ] || command -v sudo >/dev/null 2>&1; }; then
        printf 'setup-tests: installing by apt-get: %s\n' "$packages"
        export DEBIAN_FRONTEND=noninteractive
        $as_root apt-get -qq update || true
        # One by one: a release that lacks one of them still gets the others.
        for package in $packages; do
            $as_root apt-get -qq install -y --no-install-recommends "$package" >/dev/null || true
        done
        # Releases after bookworm have the compiled library instead of the compiler with its sources.
        has_toolchain rust ||
            $as_root apt-get -qq install -y --no-install-recommends rustc libstd-rust-dev-wasm32 >/dev/null || true
    fi
fi

# promtool and prometheus, unpacked and not installed: the package would start a server.
if [ ! -x "$venv/prometheus/usr/bin/promtool" ] && ! command -v promtool >/dev/null 2>&1 &&
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1; then
    printf 'setup-tests: unpacking promtool\n'
    aside=$(mktemp -d)
    (cd "$aside" && apt-get -qq download prometheus 2>/dev/null) &&
        dpkg-deb -x "$aside"/prometheus_*.deb "$venv/prometheus" || true
    rm -rf "$aside"
fi

if ! has_toolchain go; then
    printf 'setup-tests: installing the Go toolchain\n'
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes \
        --only-binary :all: -r scripts/guest_toolchains.lock || true
fi

missing=0
if ! command -v mosquitto >/dev/null 2>&1; then
    missing=1
    printf 'setup-tests: Mosquitto is missing and could not be installed. Install the package "mosquitto" (apt-get, dnf, apk, brew) and run make again.\n' >&2
fi
if ! command -v strace >/dev/null 2>&1; then
    missing=1
    printf 'setup-tests: strace is missing and could not be installed.\n' >&2
fi
if ! command -v promtool >/dev/null 2>&1 && [ ! -x "$venv/prometheus/usr/bin/promtool" ]; then
    missing=1
    printf 'setup-tests: promtool is missing and could not be unpacked (Debian: package "prometheus").\n' >&2
fi
for language in rust go; do
    has_toolchain $language && continue
    missing=1
    printf 'setup-tests: the toolchain of guests in %s is missing and could not be installed; docs/guests.md says how.\n' $language >&2
done
[ $missing = 0 ] && exit 0
[ "${CI:-}" = true ] && exit 1
printf 'setup-tests: going on without; the tests that need what is missing are skipped.\n' >&2
