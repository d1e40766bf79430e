#!/bin/bash
# A mount that prefers copies by their labels reads from those, as the reads of each
# chunkserver's process show, and from the others when they are dead.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up --chunkservers 2
size=$((16 << 20))

# has_read N: bytes that chunkserver N read, from wherever.
has_read() { awk '/^rchar/ { print $2 }' "/proc/$(cat "$DIR/chunkserver-$1/pid")/io"; }

for pair in 1:ssd 2:hdd; do
    antler label "$(listens "${pair%:*}")" "tier=${pair#*:}" >/dev/null || fail "a label"
done
head -c "$size" /dev/urandom >"$WORK/wanted"
cp "$WORK/wanted" "$MNT/file"
sync -f "$MNT"

# reads_from WHO OTHER PREFERENCE
reads_from() {
    local mount=$WORK/prefers-$1 own other
    second_mount "$mount" "$3"
    own=$(has_read "$1") other=$(has_read "$2")
    cmp "$WORK/wanted" "$mount/file" || fail "$3: the file differs"
    own=$(($(has_read "$1") - own)) other=$(($(has_read "$2") - other))
    say "$3: $own bytes of chunkserver-$1, $other of chunkserver-$2"
    [ "$own" -ge "$size" ] || fail "$3 did not read from chunkserver-$1"
    [ "$other" -lt $((size / 4)) ] || fail "$3 read from chunkserver-$2, too"
}
reads_from 1 2 "prefer=tier=ssd"
echo "# the slow one first" >"$WORK/list"
echo "tier=hdd" >>"$WORK/list"
reads_from 2 1 "prefer_file=$WORK/list"

say "the preferred one is dead"
kill_daemon chunkserver 2
second_mount "$WORK/left" "prefer=tier=hdd;tier=ssd"
cmp "$WORK/wanted" "$WORK/left/file" || fail "the file differs"
! "$ANTLER" mount "$(masters):/" "$WORK/left" -o "key=$DIR/cluster.key,prefer=tier" 2>"$WORK/wrong.txt" || fail "a preference without a value was taken"
grep -q 'prefer=tier: column' "$WORK/wrong.txt" || fail "the mistake is not told: $(cat "$WORK/wrong.txt")"
cluster_down
figure "prefer: each mount read its file from the copies that it prefers"
