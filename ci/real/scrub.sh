#!/bin/bash
# Bytes that rot on a disk of real daemons: `antler check` finds them, and the scrub does
# where nobody asks, or at once where one is ordered; all have them healed, byte for byte.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
files=$(full_or_short 200 30)
cluster_up --chunkservers 2

# scrub_at RATE: every chunkserver scrubs that fast from its next start on.
scrub_at() {
    local config
    for config in "$DIR"/chunkserver-*/config.toml; do
        sed -i '/^scrub = /d' "$config"
        printf 'scrub = "%s"\n' "$1" >>"$config"
    done
}
say "nothing is scrubbed at first"
cluster_down
scrub_at 0
cluster_up
status '.servers[].disks[].scrub' | grep -qvx null && fail "a disk is scrubbed: $(status .servers)"

# content N: what file N holds. The last three are written in bulk: what a disk keeps in its
# journal is written to its place again at every start, and rots in vain.
content() {
    local length=$((1 + $1 * 1999))
    [ "$1" -le $((files - 3)) ] || length=$((3 * 1024 * 1024 + 4321))
    yes "file $1 of so many" | head -c "$length" || true
}
compare() { compare_files "$MNT/tree" "$1"; }
# rot SERVER FILE: what a file holds rots in one place of a server's disk.
rot() {
    local slots offset
    for slots in "$DIR/chunkserver-$1"/disk-1/slots-*; do
        offset=$({ grep -abo "file $2 of so many" "$slots" || true; } | head -n 1 | cut -d: -f1)
        [ -n "$offset" ] || continue
        printf 'ROT' | dd of="$slots" bs=1 seek="$((offset + 2))" conv=notrunc status=none
        return 0
    done
    fail "chunkserver-$1 holds nothing of file $2"
}
# check CODE: what `antler check` finds, and how it ends.
check() {
    local code=0
    timeout 120 "$ANTLER" check "$MNT/tree" --json >"$WORK/check.txt" || code=$?
    [ "$code" = "$1" ] || fail "check ended with $code, not $1: $(cat "$WORK/check.txt")"
}
found() { jq -r "$1" "$WORK/check.txt"; }
# until_well SECONDS: waits until check finds nothing any more.
until_well() {
    local start; start=$(date +%s)
    until timeout 120 "$ANTLER" check "$MNT/tree" --json >"$WORK/check.txt"; do
        [ "$(seconds_since "$start")" -lt "$1" ] || fail "not healed: $(cat "$WORK/check.txt")"
        sleep 0.5
    done
}

mkdir -p "$MNT/tree/folder"
for number in $(seq "$files"); do content "$number" >"$MNT/tree/$number"; done
ln "$MNT/tree/1" "$MNT/tree/folder/linked"
sync -f "$MNT"
start=$(date +%s)
until [ "$(status .chunks.leased)" = 0 ]; do
    [ "$(seconds_since "$start")" -lt 30 ] || fail "still leased: $(status .chunks)"
    sleep 0.5
done
wait_healthy 30

say "a tree that is well"
check 0
[ "$(found .files)" = "$files" ] || fail "not every file once: $(cat "$WORK/check.txt")"
[ "$(found .copies)" = $((2 * files)) ] || fail "not every copy: $(cat "$WORK/check.txt")"
timeout 30 "$ANTLER" check "$MNT/tree/1" | grep -q 'all well' || fail "one file"
say "a file of more chunks than the leader tells of at once"
for index in $(seq 0 39); do printf x | dd of="$MNT/long" bs=1 seek=$((index << 26)) conv=notrunc status=none; done
sync -f "$MNT"
timeout 60 "$ANTLER" check "$MNT/long" | tee "$WORK/long.txt" | grep -q '^1 files, 40 chunks, 80 copies read.*all well' || fail "not every chunk of it: $(cat "$WORK/long.txt")"
rm "$MNT/long"
code=0
timeout 30 "$ANTLER" check /none --dir "$DIR" 2>"$WORK/none.txt" || code=$?
[ "$code" = 1 ] || fail "a path that is not there ended with $code"

say "two copies rot: check finds them, and they are made anew"
rot 1 7
rot 2 "$files"
check 3
[ "$(found .bad)" = 2 ] || fail "not both are found: $(cat "$WORK/check.txt")"
found '.problems[] | select(.kind == "bad") | .path' | sort >"$WORK/bad.txt"
printf '%s\n' "$MNT/tree/7" "$MNT/tree/$files" | sort | cmp - "$WORK/bad.txt" || fail "others are named"
until_well 60
wait_healthy 60
compare "after a check"

say "a server is away: its copies are missing"
kill_daemon chunkserver 2
start=$(date +%s)
until [ "$(status '[.servers[] | select(.alive)] | length')" = 1 ]; do
    [ "$(seconds_since "$start")" -lt 30 ] || fail "the server counts as alive"
    sleep 0.5
done
check 3
[ "$(found .missing)" = "$files" ] || fail "not every copy is missed: $(cat "$WORK/check.txt")"
cluster_down

say "two copies rot that nobody reads: the scrub finds them"
rot 1 "$((files - 1))"
rot 2 "$((files - 2))"
scrub_at 64MiB/s
cluster_up
start=$(date +%s)
until [ "$(status '[.servers[].disks[].scrub.findings] | add')" -ge 2 ]; do
    [ "$(seconds_since "$start")" -lt 60 ] || fail "not found: $(status .servers)"
    sleep 0.5
done
took=$(seconds_since "$start")
wait_healthy 60
until_well 30
compare "after a scrub"
# A disk rests for a few seconds after something was found on it.
start=$(date +%s)
while status '.servers[].disks[].scrub.round_ended' | grep -qx null; do
    [ "$(seconds_since "$start")" -lt 30 ] || fail "no round ended: $(status .servers)"
    sleep 0.5
done
timeout 30 "$ANTLER" status --dir "$DIR" | grep -q 'found bad' || fail "status does not tell of it"
cluster_down

say "one copy rots where nothing is scrubbed: a scrub on demand finds it"
rot 1 "$files"
scrub_at 0
cluster_up
# scrub CODE SERVER OPTIONS...: what `antler scrub` says, and how it ends.
scrub() {
    local wanted=$1 code=0 server
    server=$(listens "$2")
    shift 2
    timeout 120 "$ANTLER" scrub "$server" --dir "$DIR" "$@" >"$WORK/scrub.txt" 2>&1 || code=$?
    [ "$code" = "$wanted" ] || fail "scrub $server $* ended with $code, not $wanted: $(cat "$WORK/scrub.txt")"
}
scrub 0 2 --wait
scrub 3 1 --wait --rate 256MiB/s
grep -q ': .* read, 1 bad parts found' "$WORK/scrub.txt" || fail "it says otherwise: $(cat "$WORK/scrub.txt")"
wait_healthy 60
scrub 1 1 --disk /nowhere
grep -q 'has no disk /nowhere' "$WORK/scrub.txt" || fail "it does not say why: $(cat "$WORK/scrub.txt")"
until_well 30
disk=$(status ".servers[] | select(.address == \"$(listens 1)\") | .disks[0].path")
scrub 0 1 --disk "$disk" --wait
compare "after a scrub on demand"
cluster_down
figure "scrub: of $files files two copies were found bad by check, and two by the scrub after $took s; all healed"
