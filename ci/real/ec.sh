#!/bin/bash
# Erasure codes on real daemons: a class ec(2+1) whose files come to lie in parts, read back
# byte for byte with a chunkserver killed, repaired, then overwritten and appended to.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up --chunkservers 4
files=$(full_or_short 200 30)

say "a class that would write parts is refused, one that keeps them is made"
! antler class create bad 'ec(2+1)' 2>"$WORK/bad.txt" || fail "it would write parts"
grep -q -- '--create' "$WORK/bad.txt" || fail "the way out is not told: $(cat "$WORK/bad.txt")"
antler class create cold 'ec(2+1)' --create 'copies(2)' || fail "class create"
mkdir "$MNT/cold"
"$ANTLER" set-class cold "$MNT/cold" || fail "set-class"

# content N: what file N holds; the last one has several rows of parts and an odd end.
content() {
    local length=$((1 + $1 * 1999))
    [ "$1" != "$files" ] || length=$((9 * 1024 * 1024 + 4321))
    yes "cold file $1 of many" | head -c "$length" || true
}
# check: every byte of every file.
check() {
    local number
    for number in $(seq "$files"); do
        content "$number" | cmp - <(fetch "$MNT/cold/$number") || fail "$1: file $number differs"
    done
}
# fetch FILE: its bytes from the chunkservers, whatever the kernel has of it.
fetch() { dd if="$1" bs=1M iflag=direct status=none; }
unconverted() { status '.chunks | (.to_convert + .missing + .endangered + .under_goal + .leased)'; }
# converted SECONDS: waits until all lies in parts.
converted() {
    local start; start=$(date +%s)
    until [ "$(unconverted)" = 0 ]; do
        [ "$(seconds_since "$start")" -lt "$1" ] || fail "not converted: $(status .chunks)"
        sleep 0.5
    done
}

# has_parts: whether every part of the last file is somewhere.
has_parts() {
    "$ANTLER" info "$MNT/cold/$files" --json >"$WORK/info.json"
    jq -e '[.chunks[0].copies[] | select(.state == "current") | .part] | sort == [1, 2, 3]' "$WORK/info.json" >/dev/null
}

say "$files files are written, left alone, and converted"
for number in $(seq "$files"); do content "$number" >"$MNT/cold/$number"; done
sync -f "$MNT"
start=$(date +%s)
sleep 2
converted 120
took=$(seconds_since "$start")
"$ANTLER" info "$MNT/cold/$files" --json >"$WORK/info.json"
[ "$(jq -r '.chunks[0].code' "$WORK/info.json")" = 2+1 ] || fail "not in parts: $(cat "$WORK/info.json")"
has_parts || fail "not all parts: $(cat "$WORK/info.json")"
check "converted"

say "a chunkserver dies: every byte is read from the others"
kill_daemon chunkserver 2
check "degraded"
start=$(date +%s)
until [ "$(status '[.servers[] | select(.alive)] | length')" = 3 ] && has_parts && [ "$(unconverted)" = 0 ]; do
    [ "$(seconds_since "$start")" -lt 90 ] || fail "not repaired: $(status .chunks) $(cat "$WORK/info.json")"
    sleep 0.5
done
repaired=$(seconds_since "$start")
check "repaired"

say "files in parts are overwritten, appended to and cut"
printf 'XXXX' | dd of="$MNT/cold/$files" bs=1 seek=70000 conv=notrunc status=none || fail "overwrite"
content "$files" >"$WORK/model"
printf 'XXXX' | dd of="$WORK/model" bs=1 seek=70000 conv=notrunc status=none
printf 'appended' >>"$MNT/cold/$files"
printf 'appended' >>"$WORK/model"
truncate -s 12345 "$MNT/cold/$((files - 1))"
cmp "$WORK/model" <(fetch "$MNT/cold/$files") || fail "the overwritten file differs"
content $((files - 1)) | head -c 12345 | cmp - <(fetch "$MNT/cold/$((files - 1))") || fail "the cut file differs"

say "and are converted again"
sleep 2
converted 120
cmp "$WORK/model" <(fetch "$MNT/cold/$files") || fail "the overwritten file differs in parts"
cluster_down
figure "ec: $files files in parts after $took s, read with a server of four gone, whole again after $repaired s, overwritten and converted again"
