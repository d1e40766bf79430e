#!/bin/bash
# Disks that come, are drained and go while their chunkserver runs, on real daemons: its
# configuration is changed and read again at SIGHUP, a bad one changes nothing, and every
# byte is compared.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up --chunkservers 3
files=$(full_or_short 300 60)

content() { yes "file $1 of many" | head -c $((1 + $1 * 2999)) || true; }
check() { compare_files "$MNT/all" "$1"; }
# disk NUMBER FIELD: what status tells of a disk of chunkserver 1, by the end of its path.
disk() { status ".servers[] | select(.address == \"$(listens 1)\") | .disks[] | select(.path | endswith(\"disk-$1\")) | .$2"; }
disks() { status "[.servers[] | select(.address == \"$(listens 1)\") | .disks[]] | length"; }
folder=$DIR/chunkserver-1
config=$folder/config.toml
log=$folder/log
# reload DISKS: writes `disks` and has the configuration read again.
reload() {
    sed -i "s|^disks = .*|disks = [$1]|" "$config"
    kill -HUP "$(pid_of chunkserver 1)" || fail "SIGHUP"
}

say "$files files"
mkdir "$MNT/all"
for number in $(seq "$files"); do content "$number" >"$MNT/all/$number"; done
sync -f "$MNT"
wait_healthy 60
# A disk's copies are told by the next heartbeat, half a second later at most.
for _ in $(seq 20); do
    before=$(disk 1 copies)
    [ "$before" = 0 ] || break
    sleep 0.2
done
[ "$before" -gt 0 ] || fail "nothing is on disk 1"

say "a file with a mistake changes nothing, and says where it is"
reload '"disk-1", { path = "disk-2", limit = "1TB" }'
sleep 2
[ "$(disks)" = 1 ] || fail "it changed something"
grep -q 'limit.*1TB.*but must be' "$log" || fail "the mistake is not told: $(tail -n 5 "$log")"
grep -q "config.toml:[0-9]*: " "$log" || fail "no line is told: $(tail -n 5 "$log")"

say "a disk comes, and the first one is drained onto it"
mkdir "$folder/disk-2"
reload '{ path = "disk-1", drain = true }, { path = "disk-2", keep_free = "1MiB" }'
until_is 20 "a second disk" 2 disks
start=$(date +%s)
for number in $(seq "$files"); do [ $((number % 5)) != 0 ] || content "$number" >"$MNT/all/$number"; done
"$ANTLER" status --dir "$DIR" >"$WORK/status.txt"
grep -Eq 'disk-1: .*(being drained: [0-9]+ copies left|drained: it may be removed)' "$WORK/status.txt" || fail "no progress: $(cat "$WORK/status.txt")"
until_is 90 "disk 1 is empty" 0 disk 1 draining
took=$(seconds_since "$start")
[ "$(disk 2 copies)" -gt 0 ] || fail "nothing came to disk 2"
wait_healthy 60
check "drained"

say "the drained disk is taken out, and nothing is missing"
reload '{ path = "disk-2", keep_free = "1MiB" }'
until_is 30 "one disk" 1 disks
! grep -q 'panicked' "$log" || fail "it panicked"
[ "$(status '.chunks | .missing + .endangered + .under_goal')" = 0 ] || fail "it was needed: $(status .chunks)"
check "without disk 1"

say "it comes back empty, and the server starts on what it has"
reload '{ path = "disk-2", keep_free = "1MiB" }, "disk-1"'
until_is 20 "two disks" 2 disks
kill_daemon chunkserver 1
cluster_up
wait_healthy 60
check "after a restart"

say "all disks of the server are drained, and other servers get what is there"
reload '{ path = "disk-2", drain = true }, { path = "disk-1", drain = true }'
start=$(date +%s)
# What was deleted a moment ago stays for its grace.
held() { for number in $(seq "$files"); do "$ANTLER" info "$MNT/all/$number"; done | grep -c "$(listens 1)" || true; }
until_is 60 "no file has a copy there" 0 held
alone=$(seconds_since "$start")
wait_healthy 60
grep -hq 'is emptied onto other servers' "$DIR"/master-*/log || fail "the leader did not see to it"
reload '{ path = "disk-2", keep_free = "1MiB", drain = true }'
until_is 30 "one disk" 1 disks
[ "$(status '.chunks | .missing + .endangered + .under_goal')" = 0 ] || fail "it was needed: $(status .chunks)"
check "emptied"
cluster_down
figure "reload: $before copies of $files files drained onto a new disk in $took s, and off the server in $alone s"
