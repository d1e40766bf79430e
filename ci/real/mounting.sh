#!/bin/bash
# The command line around the mount: up again, down, data that stays, a line of
# /etc/fstab through mount(8), sub-paths, info and set-copies.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up
mountpoint -q "$MNT" || fail "$MNT is no mount"
mkdir "$MNT/sub"
echo one >"$MNT/sub/file"

say "info and set-copies"
"$ANTLER" info "$MNT/sub/file" >"$WORK/info.txt" || fail "antler info"
[ "$(grep -oE 'chunkserver-[0-9]|127\.0\.0\.1:[0-9]+' "$WORK/info.txt" | sort -u | wc -l)" -ge 2 ] || fail "info does not name two copies: $(cat "$WORK/info.txt")"
"$ANTLER" set-copies 3 "$MNT/sub" || fail "antler set-copies"
head -c 300000 /dev/urandom >"$MNT/sub/three"
sync "$MNT/sub/three"
"$ANTLER" info "$MNT/sub/three" >"$WORK/info.txt"
[ "$(grep -oE 'chunkserver-[0-9]|127\.0\.0\.1:[0-9]+' "$WORK/info.txt" | sort -u | wc -l)" -ge 3 ] || fail "a new file does not inherit 3 copies: $(cat "$WORK/info.txt")"
! "$ANTLER" set-copies 0 "$MNT/sub" 2>"$WORK/set.txt" || fail "zero copies were accepted"

say "a daemon that died is not restarted silently, up brings it back"
kill_daemon chunkserver 3
sleep 1
[ -z "$(our_pids "chunkserver-3")" ] || fail "chunkserver-3 came back by itself"
cluster_up
[ -n "$(our_pids "chunkserver-3")" ] || fail "up did not bring chunkserver-3 back"

say "SIGTERM stops gracefully"
pid=$(pid_of chunkserver 4)
kill -TERM "$pid"
for _ in $(seq 50); do [ -d "/proc/$pid" ] || break; sleep 0.1; done
[ ! -d "/proc/$pid" ] || fail "chunkserver-4 ignores SIGTERM for 5 s"
cluster_up

if [ "$(id -u)" = 0 ]; then
    say "a line of fstab, through mount(8)"
    mkdir "$WORK/helpers" "$WORK/fstab-mnt"
    [ -e /sbin/mount.antler ] && fail "/sbin/mount.antler exists: this test would replace it"
    remove_helper() { [ "$(readlink /sbin/mount.antler)" != "$ANTLER" ] || rm /sbin/mount.antler; }
    ln -s "$ANTLER" /sbin/mount.antler
    trap 'code=$?; remove_helper; (exit $code); cleanup' EXIT
    printf '%s\n' "$(masters):/sub $WORK/fstab-mnt antler _netdev,x-systemd.automount,noatime,nofail,key=$DIR/cluster.key 0 0" >"$WORK/fstab"
    mount --fstab "$WORK/fstab" "$WORK/fstab-mnt" || fail "mount through fstab"
    [ "$(cat "$WORK/fstab-mnt/file")" = one ] || fail "the sub-path shows something else"
    grep -q "^[^ ]* $WORK/fstab-mnt fuse[^ ]* .*noatime" /proc/mounts || fail "noatime did not arrive: $(grep fstab-mnt /proc/mounts)"
    echo two >"$WORK/fstab-mnt/written"
    [ "$(cat "$MNT/sub/written")" = two ] || fail "a file written there is not here"
    umount "$WORK/fstab-mnt" || fail "umount"
    mount -t antler "$(masters):/" "$WORK/fstab-mnt" -o "ro,key=$DIR/cluster.key" || fail "mount -t antler"
    ! touch "$WORK/fstab-mnt/x" 2>/dev/null || fail "ro is not read-only"
    umount "$WORK/fstab-mnt"
    ! mount -t antler "$(masters):/nowhere" "$WORK/fstab-mnt" -o "key=$DIR/cluster.key" 2>"$WORK/mount.txt" || fail "a sub-path that is not there was mounted"
    [ -s "$WORK/mount.txt" ] || fail "the refused mount says nothing"
    remove_helper
    figure "fstab: mounted, read, written, unmounted through mount(8)"
else
    say "not root: fstab is left out"
fi

say "down, and up again with the data"
cluster_down
! mountpoint -q "$MNT" || fail "down left the mount"
cluster_up
[ "$(cat "$MNT/sub/file")" = one ] || fail "the data did not stay"
wait_healthy 60
cluster_down
figure "up, down, info, set-copies: as the manual says"
