#!/bin/bash
# The masters' folders are destroyed; a metalogger's folder becomes the new
# master. What it had acknowledged is there; chunks written after it was cut
# off are quarantined, not deleted.
. "$(dirname "$0")/lib.sh"
need jq
cluster_up
mkdir "$MNT/witness"
"$WITNESS" write "$MNT/witness" --journal "$WORK/journal" --seconds "$(full_or_short 10 3)" >"$WORK/write.txt" || fail "$(cat "$WORK/write.txt")"
say "before: $(cat "$WORK/write.txt")"
[ -z "$PLAIN" ] || { witness_check "$MNT/witness" "$WORK/journal"; exit 0; }

# The metalogger is a learner: it has caught up when its position is the leader's.
start=$(date +%s)
until [ "$(status '[.members[].position] | unique | length')" = 1 ]; do
    [ "$(seconds_since "$start")" -lt 30 ] || fail "the metalogger does not catch up: $(status .members)"
    sleep 0.2
done
kill_daemon metalogger 1
mkdir "$MNT/late"
for number in $(seq 20); do head -c 100000 /dev/urandom >"$MNT/late/$number"; done
sync "$MNT"/late/*
chunks=$(find "$DIR"/chunkserver-* -type f | wc -l)
kill_everything
rm -rf "$DIR"/master-*

say "recover"
"$ANTLER" recover --from "$DIR/metalogger-1" --dir "$DIR" | tee "$WORK/recover.txt" || fail "antler recover"
grep -qi position "$WORK/recover.txt" || fail "recover does not say which position it holds"
cluster_up
witness_check "$MNT/witness" "$WORK/journal"
[ ! -e "$MNT/late" ] || fail "names written after the metalogger was cut off are there"
start=$(date +%s)
until [ "$(status '.chunks.quarantined')" -gt 0 ]; do
    [ "$(seconds_since "$start")" -lt 60 ] || fail "no chunk is quarantined: $(status .chunks)"
    sleep 0.5
done
sleep 5
figure "recover: $(tail -n 1 "$WORK/check.txt"), quarantined $(status .chunks.quarantined)"
left=$(find "$DIR"/chunkserver-* -type f | wc -l)
[ "$left" -ge "$chunks" ] || fail "chunk files went away: $chunks before, $left now"
echo hello >"$MNT/after"
[ "$(cat "$MNT/after")" = hello ] || fail "the recovered cluster does not write"
cluster_down
