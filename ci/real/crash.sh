#!/bin/bash
# A writer syncs numbered files and notes each acknowledgement outside. All
# processes get SIGKILL at once; after `up` everything acknowledged is there.
# Then the same with all data folders on faultfs, which forgets at the kill
# what was not synced: what SIGKILL alone leaves in the page cache is gone.
. "$(dirname "$0")/lib.sh"
need jq
kills=$(full_or_short 20 2)
cuts=$(full_or_short 10 2)
seed=${SEED:-$(date +%s)}
RANDOM=$((seed % 32768))
say "seed $seed"

# round NUMBER KILL: writes for a while, runs KILL, brings all up, checks.
round() {
    local number=$1
    shift
    "$WITNESS" write "$MNT/witness" --journal "$WORK/journal" --run "$number" --threads 4 --seconds 600 --crash-expected >"$WORK/write-$number.txt" &
    local writer=$!
    sleep "$((1 + RANDOM % 3)).$((RANDOM % 10))"
    kill -0 "$writer" 2>/dev/null || fail "the writer ended before the crash: $(cat "$WORK/write-$number.txt")"
    "$@"
    if [ -n "$PLAIN" ] && [ "$1" = kill_everything ]; then kill "$writer"; fi
    wait "$writer" || [ -n "$PLAIN" ] || fail "the writer crashed too"
    local start
    start=$(date +%s%N)
    cluster_up
    local up=$((($(date +%s%N) - start) / 1000000))
    say "round $number: $(head -n 1 "$WORK/write-$number.txt"), up again in $up ms"
    witness_check "$MNT/witness" "$WORK/journal"
}

fresh_witness() {
    rm -f "$WORK/journal"
    mkdir "$MNT/witness"
    sync "$MNT"
}

say "SIGKILL of everything, $kills rounds"
cluster_up
fresh_witness
for number in $(seq "$kills"); do round "$number" kill_everything; done
figure "SIGKILL: $kills rounds, $(tail -n 1 "$WORK/check.txt")"
wait_healthy 120
cluster_down

say "power cuts on faultfs, $cuts rounds"
rm -rf "$DIR" "$WORK/check.txt"
[ -z "$PLAIN" ] || rm -rf "$MNT"
mkdir "$DIR" "$WORK/backing"
"$FAULTFS" mount "$WORK/backing" "$DIR" --control "$WORK/control" --seed "$seed" --strict-dirs --exempt /log 2>"$WORK/faultfs.log" &
until [ -S "$WORK/control" ]; do
    kill -0 $! 2>/dev/null || fail "faultfs: $(cat "$WORK/faultfs.log")"
    sleep 0.1
done
faultfs() {
    local answer
    answer=$("$FAULTFS" control "$WORK/control" "$@") || fail "faultfs $*"
    case $1 in forget | cut) say "$answer" ;; esac
}

# The processes die first, then the page cache goes.
kill_then_forget() {
    kill_everything
    [ -z "$PLAIN" ] || kill "$writer"
    faultfs forget
}
# The power goes first, for all at one instant; the processes meet EIO until they die.
cut_then_kill() {
    faultfs cut
    kill_everything
    faultfs restore
}

# Without a cluster the writer works on faultfs itself, and a sync that lies
# must be found out: else the whole test could not fail.
if [ -n "$PLAIN" ]; then
    MNT=$DIR/mnt
    mkdir "$MNT"
    faultfs restore
    sync "$DIR"
fi
cluster_up
fresh_witness
for number in $(seq "$cuts"); do
    if [ $((number % 2)) = 0 ]; then round "$number" kill_then_forget; else round "$number" cut_then_kill; fi
done
figure "power cuts: $cuts rounds, $(tail -n 1 "$WORK/check.txt")"
figure "power cuts: $(grep -c '^cut' "$WORK/faultfs.log") cuts lost $(awk '/^cut/ { for (i = 1; i <= NF; i++) if (sub("sectors_lost=", "", $i)) s += $i; else if (sub("names_lost=", "", $i)) n += $i } END { print s " sectors and " n " changes of names" }' "$WORK/faultfs.log")"
if [ -n "$PLAIN" ]; then
    faultfs lie sync new- percent=50
    if (round 1000 cut_then_kill) >/dev/null 2>&1; then fail "syncs that lied were not found out"; fi
    say "syncs that lied were found out"
fi
wait_healthy 120
cluster_down
umount "$DIR"
