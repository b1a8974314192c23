#!/bin/bash
# Boot a Debian root with systemd as PID 1: boot_rootfs.sh ROOTFS OUT
#
# Starts OUT/first-boot.service where there is one. As root. ROOTFS stays as it is (its changes live in memory); OUT is /out inside. The exit status is
# that of `systemctl exit N` inside. Nothing of the host's systemd is needed: it works where the host
# runs none, on a hybrid or legacy cgroup tree, and on a unified one. The machine has no network but
# its own loopback.
set -eu
rootfs=$(readlink -f "$1")
mkdir -p "$2"
out=$(readlink -f "$2")
name=edge-bed-$$

# A control group of its own in each hierarchy that there is; nspawn puts the system below it.
groups=
if [ -f /sys/fs/cgroup/cgroup.controllers ]; then
    groups=/sys/fs/cgroup/$name
else
    for tree in unified systemd memory cpu pids; do
        [ -d "/sys/fs/cgroup/$tree" ] && groups="$groups /sys/fs/cgroup/$tree/$name"
    done
fi
for group in $groups; do mkdir "$group"; done

# The legacy controllers come read-only; without them MemoryMax= would be a word and no limit.
init=$out/init
cat >"$init" <<'INIT'
#!/bin/sh
for tree in memory cpu,cpuacct cpu pids; do mount -o remount,rw,bind "/sys/fs/cgroup/$tree" 2>/dev/null; done
if [ -f /out/first-boot.service ]; then
    mkdir -p /etc/systemd/system/multi-user.target.wants
    cp /out/first-boot.service /etc/systemd/system/
    ln -s ../first-boot.service /etc/systemd/system/multi-user.target.wants/
fi
exec /lib/systemd/systemd "$@"
INIT
chmod 755 "$init"

status=0
(
    for group in $groups; do echo "$BASHPID" >"$group/cgroup.procs"; done
    exec unshare --mount --propagation private bash -c '
        mount -t tmpfs -o mode=755 tmpfs /run
        exec systemd-nspawn --quiet --register=no --keep-unit --console=read-only --private-network \
            --volatile=overlay --bind="$1":/out --machine=gateway -D "$2" /out/init' sh "$out" "$rootfs"
) </dev/null || status=$?

for _ in 1 2 3 4 5; do
    for group in $groups; do
        [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    sleep 0.1
done
exit "$status"
