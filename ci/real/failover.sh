#!/bin/bash
# Three masters, two mounts, a writer on each; the leader gets SIGKILL. No error
# reaches the writers, the pause is measured, nothing acknowledged is lost.
. "$(dirname "$0")/lib.sh"
need jq
kills=$(full_or_short 3 1)
other=$WORK/other
cluster_up --masters 3
second_mount "$other"
mkdir "$MNT/witness-1" "$MNT/witness-2"
# may_stop CODE NODE...: what `antler ok-to-stop` answers, by its exit code.
may_stop() {
    local wanted=$1 code=0
    shift
    "$ANTLER" ok-to-stop --dir "$DIR" "$@" >"$WORK/stop.txt" || code=$?
    [ "$code" = "$wanted" ] || fail "ok-to-stop $*: exit code $code, not $wanted: $(cat "$WORK/stop.txt")"
}
if [ -z "$PLAIN" ]; then
    echo something >"$MNT/with-two-copies"
    sync "$MNT/with-two-copies"
    mapfile -t servers < <(status '.servers[].address')
    may_stop 0 master-1
    may_stop 3 master-1 master-2
    may_stop 3 "${servers[@]}"
    may_stop 3 --allow-endangered "${servers[@]}"
    may_stop 1 nobody
    # A new cluster is at the newest feature level, and raising it again changes nothing.
    level=$(status .feature_level.newest)
    [ "$(status .feature_level.level)" = "$level" ] || fail "a new cluster is at another level: $(status .feature_level)"
    for order in "" --raise --raise; do
        "$ANTLER" feature-level --dir "$DIR" $order >"$WORK/level.txt" || fail "feature-level $order: $(cat "$WORK/level.txt")"
        grep -qx "feature level $level" "$WORK/level.txt" || fail "feature-level $order: $(cat "$WORK/level.txt")"
    done
fi

for number in $(seq "$kills"); do
    "$WITNESS" write "$MNT/witness-1" --journal "$WORK/journal-1" --run "$number" --threads 2 --seconds 12 --largest 70000 >"$WORK/write-1.txt" &
    first=$!
    "$WITNESS" write "$other/witness-2" --journal "$WORK/journal-2" --run "$number" --threads 2 --seconds 12 --largest 70000 >"$WORK/write-2.txt" &
    second=$!
    sleep 4
    if [ -z "$PLAIN" ]; then
        old=$(leader)
        [ -n "$old" ] || fail "status names no leader: $(status .members)"
        kill_daemon master "$old"
    fi
    wait "$first" || fail "an error reached the first writer: $(cat "$WORK/write-1.txt")"
    wait "$second" || fail "an error reached the second writer: $(cat "$WORK/write-2.txt")"
    figure "failover $number: first mount $(cat "$WORK/write-1.txt")"
    figure "failover $number: second mount $(cat "$WORK/write-2.txt")"
    witness_check "$other/witness-1" "$WORK/journal-1"
    witness_check "$MNT/witness-2" "$WORK/journal-2"
    if [ -z "$PLAIN" ]; then
        new=$(leader)
        [ "$new" != "$old" ] || fail "master-$old was killed and still leads"
        cluster_up --masters 3
        say "led by master-$new now, master-$old is back"
        sleep 3
    fi
done
cluster_down
