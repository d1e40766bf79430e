#!/bin/bash
# A server that comes empty gets its share of what the others have, while files are read
# and written; every byte is compared. Each server's disk is a small one of memory.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
# A cluster is made in an empty folder: its disks go to memory behind that.
cluster_up --chunkservers 4
cluster_down
for server in 1 2 3 4; do
    disk=$DIR/chunkserver-$server/disk-1
    mv "$disk" "$WORK/formatted-$server"
    mkdir "$disk"
    mount -t tmpfs -o size=400m antler-balance "$disk"
    cp -a "$WORK/formatted-$server/." "$disk/"
done
cluster_up
files=$(full_or_short 120 60)

content() { yes "file $1 of many" | head -c $((3000000 + $1 * 1999)) || true; }
# used N: of a hundred bytes of chunkserver N's disk that may be used, how many are.
used() {
    status ".servers[] | select(.address == \"$(listens "$1")\") | .disks[0] | ((.total - .free) * 100 / .total) | floor"
}
differ() { # by how many percent the fullest is fuller than the emptiest
    local server all
    all=$(for server in 1 2 3 4; do used "$server"; done | sort -n)
    echo $(($(tail -n 1 <<<"$all") - $(head -n 1 <<<"$all")))
}
is_even() { [ "$(differ)" -le 11 ] && echo yes || echo no; }

say "$files files while a server is away"
kill_daemon chunkserver 4
mkdir "$MNT/many"
for number in $(seq "$files"); do content "$number" >"$MNT/many/$number"; done
sync -f "$MNT"
wait_healthy 60
cluster_up
wait_healthy 60
before=$(differ)
[ "$before" -gt 12 ] || fail "the server that was away has as much as the others: $before"

say "it is back, with $before % less than another, and files are read and written"
start=$(date +%s)
(while :; do content 0 >"$MNT/again" && content 0 | cmp - "$MNT/again" || exit 1; done) &
writer=$!
until_is 180 "all servers use about as much" yes is_even
kill -0 "$writer" || fail "what was written meanwhile reads otherwise"
signal_pids TERM "$writer"
wait "$writer" 2>/dev/null || true
took=$(seconds_since "$start")
until_is 60 "nothing is left to move" 0 status .repairs.balancing
wait_healthy 60
compare_files "$MNT/many" "behind the moves"
"$ANTLER" check "$MNT" >"$WORK/check.txt" || fail "check: $(tail -n 5 "$WORK/check.txt")"
after=$(differ)
cluster_down
figure "balance: an empty server of four, $before % behind, was $after % behind after $took s"
