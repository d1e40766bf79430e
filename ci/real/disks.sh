#!/bin/bash
# Disks that fail under load, one server's at a time: every operation answers
# EIO for a while, then rotten bytes in what chunks hold. No error reaches the
# writer, everything acknowledged reads back, redundancy returns.
. "$(dirname "$0")/lib.sh"
need jq
seconds=$(full_or_short 30 12)
seed=${SEED:-$(date +%s)}
RANDOM=$((seed % 32768))
say "seed $seed"

mkdir "$DIR" "$WORK/backing"
"$FAULTFS" mount "$WORK/backing" "$DIR" --control "$WORK/control" --seed "$seed" 2>"$WORK/faultfs.log" &
until [ -S "$WORK/control" ]; do
    kill -0 $! 2>/dev/null || fail "faultfs: $(cat "$WORK/faultfs.log")"
    sleep 0.1
done
faultfs() { "$FAULTFS" control "$WORK/control" "$@" >>"$WORK/faultfs.log" || fail "faultfs $*"; }
[ -z "$PLAIN" ] || MNT=$DIR/mnt

cluster_up
mkdir "$MNT/witness"
write() { # write RUN RULE...: the writer works while the rule holds in its middle
    local run=$1
    shift
    "$WITNESS" write "$MNT/witness" --journal "$WORK/journal" --run "$run" --threads 2 --seconds "$seconds" --largest 70000 >"$WORK/write-$run.txt" &
    local writer=$!
    sleep $((seconds / 4))
    faultfs "$@"
    sleep $((seconds / 4))
    faultfs clear
    wait "$writer" || fail "an error reached the writer: $(cat "$WORK/write-$run.txt")"
    figure "disks: $* for $((seconds / 4)) s: $(cat "$WORK/write-$run.txt")"
    witness_check "$MNT/witness" "$WORK/journal"
}

write 1 eio write chunkserver-1/disk
write 2 eio sync chunkserver-2/disk percent=20
write 3 delay 200 any chunkserver-3/disk percent=50
[ -z "$PLAIN" ] || { umount -l "$DIR"; exit 0; }

# A disk that failed may have been given up: a restart takes it back or empties it.
cluster_down
cluster_up
wait_healthy 180

say "bit rot"
# In the content of chunks: what says where that is has its own checksums, and a disk
# where it is damaged is refused as a whole.
rotten=0
while read -r file; do
    size=$(stat -c %s "$file")
    for _ in $(seq 20); do
        printf '\377\000\377\000rot' | dd of="$file" bs=1 seek=$(((RANDOM * 32768 + RANDOM) % (size - 16))) conv=notrunc status=none
        rotten=$((rotten + 1))
    done
done < <(find "$DIR"/chunkserver-4/disk* -type f -name 'slots-*' -size +80k)
[ "$rotten" -gt 0 ] || fail "chunkserver-4 has no slot file to damage"
cluster_down
cluster_up
witness_check "$MNT/witness" "$WORK/journal"
wait_healthy 180
figure "disks: $rotten places of one server's disk damaged, everything read back"
cluster_down
umount "$DIR"
