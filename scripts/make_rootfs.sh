#!/bin/sh
# Make a Debian 12 root for tests: make_rootfs.sh OUT [amd64|arm64|bare|genicam]
#
# amd64: with systemd, and apt's cache holding what edge's package depends on and recommends, so that
# `apt-get install ./edge…deb` works inside without a network; boots by boot_rootfs.sh. arm64: unpacked
# only, with Python, for arm_run.sh. bare: amd64 with apt and little more, for a container image to
# build upon. genicam: amd64 with what docs/examples/genicam_bridge.py needs. As root, by mmdebstrap;
# made once by one form of this script, then taken as it is.
# Packages come from where this machine's apt takes Debian 12's, by the same proxy; where it has none
# of Debian 12's, from Debian's own mirror.
set -eu
out=$1
arch=${2:-amd64}
form=$(cksum <"$0")
[ "$(cat "$out.form" 2>/dev/null)" = "$form" ] && [ -d "$out/usr" ] && exit 0
command -v mmdebstrap >/dev/null || { echo "make_rootfs: mmdebstrap is not installed (Debian: apt-get install mmdebstrap)" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "make_rootfs: needs root" >&2; exit 1; }
rm -rf "$out" "$out.form" "$out.part"
mkdir -p "$out.part"

# What this machine says of mirrors and of the way to them.
apt-config dump 2>/dev/null |
    grep -E '^Acquire::(https?(::[^ ]*)?|Check-Valid-Until|Check-Date|Retries|ForceIPv[46]) "[^"]+"' \
        >"$out.part.apt" || true
apt-get indextargets --format 'deb $(SITE) $(RELEASE) $(COMPONENT)' \
    'Created-By: Packages' 'Origin: Debian' 2>/dev/null |
    grep -E '^deb [^ ]+ bookworm(-updates|-security)? main$' | sort -u >"$out.part.list" || true
grep -q ' bookworm main$' "$out.part.list" || : >"$out.part.list"

set -- --quiet --aptopt="$out.part.apt"
if [ "$arch" = arm64 ]; then
    # Nothing of the target runs: packages are laid out, not set up.
    set -- "$@" --architectures=arm64 --variant=extract \
        --include=libstdc++6,libgomp1,python3,python3-minimal,libc-bin,coreutils,bash,base-files
elif [ "$arch" = bare ]; then
    set -- "$@" --variant=minbase
else
    bridge=
    [ "$arch" = genicam ] && bridge=,python3-gi,gir1.2-aravis-0.8
    # shellcheck disable=SC2016
    set -- "$@" --variant=minbase \
        --include=systemd,systemd-sysv,dbus,ca-certificates,iproute2,procps,python3$bridge \
        --skip=cleanup/apt --customize-hook='APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
            export APT_CONFIG
            apt-get clean
            apt-get -qq --yes --download-only install mosquitto libgomp1 libstdc++6'
fi
set -- "$@" bookworm "$out.part.tar"
[ ! -s "$out.part.list" ] || set -- "$@" "$out.part.list"
# In memory where that is allowed: dpkg waits for the disk at every file.
aside=$(readlink -f "$out.part")/tmp
mkdir "$aside"
# shellcheck disable=SC2016
unshare --mount --propagation private sh -c '
    mount -t tmpfs -o mode=755 tmpfs "$0" 2>/dev/null || true
    TMPDIR=$0 exec mmdebstrap "$@"' "$aside" "$@"
rm -rf "$aside"
tar -xf "$out.part.tar" -C "$out.part"
rm "$out.part.tar" "$out.part.apt" "$out.part.list"
mv "$out.part" "$out"
printf '%s\n' "$form" >"$out.form"
