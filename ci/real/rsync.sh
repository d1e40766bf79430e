#!/bin/bash
# rsync of a real tree while a chunkserver is killed and its disks are removed:
# rsync sees no error, a second pass finds no difference, redundancy returns.
. "$(dirname "$0")/lib.sh"
need rsync jq
files=$(full_or_short 20000 2000)

# A tree of real files, at least as many as asked for.
find /usr/share /usr/lib /usr/include \( -type f -o -type l \) -printf '%p\n' 2>/dev/null | head -n "$files" >"$WORK/list.txt" || true
[ -z "$SHORT" ] && find /usr/share -printf '%p\n' >"$WORK/whole.txt" && [ "$(wc -l <"$WORK/whole.txt")" -ge "$files" ] && mv "$WORK/whole.txt" "$WORK/list.txt"
count=$(wc -l <"$WORK/list.txt")
[ "$count" -ge "$files" ] || fail "this machine has only $count files to copy, $files are needed"

cluster_up
copy() { rsync -aH "$@" --files-from="$WORK/list.txt" / "$MNT/tree/"; }
mkdir "$MNT/tree"
say "rsync of $count files"
start=$(date +%s)
copy 2>"$WORK/rsync.txt" &
rsync=$!
half=$((count / 3))
until [ "$(find "$MNT/tree" -type f 2>/dev/null | wc -l)" -ge "$half" ]; do
    kill -0 "$rsync" 2>/dev/null || break
    sleep 0.5
done
kill -0 "$rsync" 2>/dev/null || [ -n "$PLAIN" ] || fail "rsync was over before a chunkserver could be killed"
kill_daemon chunkserver 2
if [ -z "$PLAIN" ]; then
    rm -rf "$DIR"/chunkserver-2/disk*
    [ -z "$(echo "$DIR"/chunkserver-2/disk*)" ] || fail "the disk folder is still there"
fi
wait "$rsync" || fail "rsync: $(cat "$WORK/rsync.txt")"
[ ! -s "$WORK/rsync.txt" ] || fail "rsync complained: $(cat "$WORK/rsync.txt")"
figure "rsync: $count names in $(seconds_since "$start") s, one of four chunkservers lost on the way, no error"

say "second pass: reads and compares everything"
start=$(date +%s)
copy -ni --checksum >"$WORK/second.txt" || fail "the second rsync"
[ ! -s "$WORK/second.txt" ] || fail "the trees differ: $(head "$WORK/second.txt")"
figure "rsync: second pass with --checksum printed nothing, $(seconds_since "$start") s"
wait_healthy 600
cluster_down
