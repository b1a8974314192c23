#!/bin/bash
# Run a command in an arm64 root by emulation: arm_run.sh ROOTFS COMMAND...
#
# As root, with qemu-user-static and Linux 6.7: a user namespace has a binfmt_misc of its own, so
# nothing of the host is registered or mounted. /sys stays away: with it, ONNX Runtime reads the
# host's processor and crashes under emulation.
set -eu
rootfs=$(readlink -f "$1")
shift
export rootfs
gate=$(mktemp -u)
mkfifo "$gate"
# shellcheck disable=SC2016
unshare --user --mount --propagation private bash -c '
    read -r _ <"$0"
    mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
    elf="\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask="\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    printf "%s" ":edge-arm64:M::$elf:$mask:$(command -v qemu-aarch64-static):FP" >/proc/sys/fs/binfmt_misc/register
    mount --rbind /dev "$rootfs/dev"
    mount --rbind /proc "$rootfs/proc"
    exec chroot "$rootfs" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
        QEMU_CPU=cortex-a72 "$@"' "$gate" "$@" &
child=$!
# The mapping of users is written from outside, once the namespace is there.
while [ "$(readlink "/proc/$child/ns/user")" = "$(readlink /proc/self/ns/user)" ]; do
    kill -0 "$child" 2>/dev/null || { echo "arm_run: no user namespace could be made" >&2; exit 1; }
    sleep 0.02
done
echo "0 0 65536" >"/proc/$child/uid_map"
echo "0 0 65536" >"/proc/$child/gid_map"
echo go >"$gate"
status=0
wait "$child" || status=$?
rm -f "$gate"
exit "$status"
