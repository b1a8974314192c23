#!/bin/sh
# Make a Debian root for tests: make_rootfs.sh OUT [amd64|arm64]
#
# amd64: with systemd, Mosquitto and what the package depends on; boots by boot_rootfs.sh. arm64:
# unpacked only, with Python, for arm_run.sh. As root, by mmdebstrap; made once, then taken as it is.
set -eu
out=$1
arch=${2:-amd64}
[ -x "$out/usr/bin/python3.11" ] && exit 0
command -v mmdebstrap >/dev/null || { echo "make_rootfs: mmdebstrap is not installed (Debian: apt-get install mmdebstrap)" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "make_rootfs: needs root" >&2; exit 1; }
base=libstdc++6,libgomp1,python3
rm -rf "$out" "$out.part"
mkdir -p "$(dirname "$out")"
if [ "$arch" = arm64 ]; then
    # Nothing of the target runs: packages are laid out, not set up.
    mmdebstrap --quiet --architectures=arm64 --variant=extract \
        --include=$base,python3-minimal,libc-bin,coreutils,bash,base-files bookworm "$out.part.tar"
else
    mmdebstrap --quiet --variant=minbase \
        --include=$base,systemd,systemd-sysv,dbus,ca-certificates,iproute2,procps,mosquitto \
        bookworm "$out.part.tar"
fi
mkdir "$out.part"
tar -xf "$out.part.tar" -C "$out.part"
rm "$out.part.tar"
mv "$out.part" "$out"
