#!/bin/bash
# What one mount wrote and closed, the other reads; a rename or an unlink on one
# is seen by the other. Both ways, with warm caches on the reading side.
. "$(dirname "$0")/lib.sh"
need jq
rounds=$(full_or_short 300 60)
other=$WORK/other
cluster_up
second_mount "$other"

# one_way FROM TO ROUND
one_way() {
    local from=$1 to=$2 round=$3 name="file-$3"
    echo "first $round" >"$from/$name"
    [ "$(cat "$to/$name")" = "first $round" ] || fail "round $round: not what was written"
    echo "second, longer $round" >"$from/$name"
    [ "$(cat "$to/$name")" = "second, longer $round" ] || fail "round $round: an overwrite is not seen"
    printf 'tail' >>"$from/$name"
    [ "$(stat -c %s "$to/$name")" = "$(stat -c %s "$from/$name")" ] || fail "round $round: the length is not seen"
    [ "$(tail -c 4 "$to/$name")" = tail ] || fail "round $round: an append is not seen"
    chmod 0640 "$from/$name"
    [ "$(stat -c %a "$to/$name")" = 640 ] || fail "round $round: the mode is not seen"
    mv "$from/$name" "$from/moved-$round"
    [ ! -e "$to/$name" ] || fail "round $round: the old name is still seen"
    [ "$(tail -c 4 "$to/moved-$round")" = tail ] || fail "round $round: the new name is not seen"
    rm "$from/moved-$round"
    [ ! -e "$to/moved-$round" ] || fail "round $round: a removed file is still seen"
    mkdir "$from/folder-$round"
    [ -d "$to/folder-$round" ] || fail "round $round: a folder is not seen"
    touch "$to/folder-$round/x"
    [ "$(ls "$from/folder-$round")" = x ] || fail "round $round: a listing is stale"
    rm -r "$from/folder-$round"
    [ "$(find "$to" -maxdepth 1 -name "*-$round" | wc -l)" = 0 ] || fail "round $round: a listing shows what is gone"
}

for round in $(seq "$rounds"); do
    if [ $((round % 2)) = 0 ]; then one_way "$MNT" "$other" "$round"; else one_way "$other" "$MNT" "$round"; fi
done
say "a large file"
head -c 20000000 /dev/urandom >"$MNT/large"
cmp "$MNT/large" "$other/large" || fail "the large file differs"
dd if=/dev/urandom of="$other/large" bs=65536 seek=17 count=3 conv=notrunc,fsync status=none
cmp "$MNT/large" "$other/large" || fail "the large file differs after an overwrite on the other mount"
figure "coherence: $rounds rounds of 12 checks both ways, no difference"
cluster_down
