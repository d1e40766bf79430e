#!/bin/bash
# What operators ask and order of chunkservers, on real daemons: a file's chunks are
# explained, a server is drained and removed, and one is away in maintenance while nothing
# moves; every byte is compared.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up --chunkservers 5
files=$(full_or_short 200 30)

content() { yes "file $1 of many" | head -c $((1 + $1 * 1999)) || true; }
check() { compare_files "$MNT/wide" "$1"; }
# of N FIELD: what status tells of chunkserver N.
of() { status ".servers[] | select(.address == \"$(listens "$1")\") | .$2"; }
# explained PATH FILTER: what explain tells.
explained() { "$ANTLER" explain "$1" --json | jq -r "$2"; }

say "$files files of a class with terms, and each copy tells which it fills"
for server in 1 2; do antler label "$(listens $server)" dc=west >/dev/null || fail "a label"; done
for server in 3 4 5; do antler label "$(listens $server)" dc=east >/dev/null || fail "a label"; done
antler class create wide '1 in dc=west, 1 in dc=east' || fail "class create"
mkdir "$MNT/wide"
"$ANTLER" set-class wide "$MNT/wide" || fail "set-class"
for number in $(seq "$files"); do content "$number" >"$MNT/wide/$number"; done
sync -f "$MNT"
wait_healthy 60
told=$(explained "$MNT/wide/1" '.chunks[0] | [.health, .survives.servers, .survives.datacentres, ([.copies[].fills] | sort | join(", "))] | join("; ")')
[ "$told" = "at goal; 1; 1; 1 in dc=east hard, 1 in dc=west hard" ] || fail "explained: $told"
"$ANTLER" explain "$MNT/wide/1" >"$WORK/explain.txt" || fail "explain"
grep -q 'survives any 1 server, any 1 datacentre' "$WORK/explain.txt" || fail "what is survived is not told: $(cat "$WORK/explain.txt")"
grep -q '\[1 in dc=west hard\]' "$WORK/explain.txt" || fail "no term is told: $(cat "$WORK/explain.txt")"
[ "$(explained "$MNT" '.files')" = 0 ] || fail "without -r a directory below is not looked at"
[ "$("$ANTLER" explain -r "$MNT" --json | jq -r '[.files, .health["at goal"]] | join(" ")')" = "$files $files" ] || fail "explain -r"

say "a server in maintenance is away, and nothing moves"
! antler maintenance "$(listens 3)" --for 8d 2>/dev/null || fail "a week is the most"
antler maintenance "$(listens 3)" --for 10min >"$WORK/maintenance.txt" || fail "maintenance"
before=$(of 4 copies)
kill_daemon chunkserver 3
until_is 30 "it is away" false of 3 alive
sleep "$(full_or_short 25 12)"
[ "$(of 4 copies)" = "$before" ] || fail "something was made in its place"
[ "$(status '.chunks | .endangered + .under_goal + .missing')" = 0 ] || fail "what is awaited is told as endangered: $(status .chunks)"
[ "$(status .chunks.awaited)" -gt 0 ] || fail "nothing is awaited: $(status .chunks)"
"$ANTLER" explain -r "$MNT" >"$WORK/awaited.txt"
grep -q 'awaited; survives no server' "$WORK/awaited.txt" || fail "explain: $(head "$WORK/awaited.txt")"
grep -q "waits for what is in maintenance: $(listens 3) for" "$WORK/awaited.txt" || fail "explain: $(head "$WORK/awaited.txt")"
check "in maintenance"
cluster_up
until_is 30 "it is back" true of 3 alive
antler maintenance "$(listens 3)" --end || fail "maintenance --end"
wait_healthy 60

say "a server is drained while files are read, and removed"
! antler label "$(listens 4)" antler.drain=yes 2>/dev/null || fail "a reserved label was set by hand"
start=$(date +%s)
timeout 120 "$ANTLER" drain "$(listens 4)" --wait --dir "$DIR" >"$WORK/drain.txt" || fail "drain: $(cat "$WORK/drain.txt")"
took=$(seconds_since "$start")
tail -n 1 "$WORK/drain.txt" | grep -q 'may be removed' || fail "drain: $(cat "$WORK/drain.txt")"
[ "$(of 4 draining)" = 0 ] || fail "something is left: $(of 4 draining)"
antler ok-to-stop "$(listens 4)" >/dev/null || fail "it may not be stopped"
kill_daemon chunkserver 4
until_is 30 "it is away" false of 4 alive
[ "$(status '.chunks | .endangered + .under_goal + .missing')" = 0 ] || fail "it was needed: $(status .chunks)"
check "without it"

say "with nowhere else to go the term is told"
antler drain "$(listens 1)" >/dev/null || fail "drain"
timeout 60 "$ANTLER" drain "$(listens 2)" --dir "$DIR" >"$WORK/stuck.txt" || fail "drain"
grep -q 'is being drained' "$WORK/stuck.txt" || fail "it went somewhere: $(cat "$WORK/stuck.txt")"
waits() { explained "$MNT/wide/1" '[.chunks[0].pending[] | select(test("waits for a server with room: .*1 in dc=west"))] | length'; }
until_is 20 "what it waits for" 1 waits
antler drain "$(listens 1)" --end >/dev/null || fail "drain --end"
antler drain "$(listens 2)" --end >/dev/null || fail "drain --end"
until_is 60 "all at goal" 0 status '.chunks | .draining + .outside + .under_goal + .endangered'
cluster_down
figure "drain: a server of five with its share of $files files empty after $took s; one away in maintenance without a copy made"
