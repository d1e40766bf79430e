#!/bin/bash
# Storage classes on real daemons: labels set at run time, a class of hard terms, a
# server of it killed; the bytes are compared, and that no byte ever was outside of its
# class is seen by looking for it in the folders of all chunkservers.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up --chunkservers 5
files=$(full_or_short 200 30)

say "three servers in the west, two in the east"
for server in 1 2 3; do antler label "$(listens $server)" dc=west >/dev/null || fail "a label"; done
for server in 4 5; do antler label "$(listens $server)" dc=east >/dev/null || fail "a label"; done
[ "$(antler label "$(listens 1)")" = dc=west ] || fail "the label does not show"
antler class create west '2 in dc=west' || fail "class create"
! antler class create bad '2 in dc=' 2>"$WORK/bad.txt" || fail "a class without a place was made"
grep -q 'column 9' "$WORK/bad.txt" || fail "the mistake's column is not told: $(cat "$WORK/bad.txt")"
mkdir "$MNT/west" "$MNT/free"
"$ANTLER" set-class west "$MNT/west" || fail "set-class"
[ "$("$ANTLER" get-class "$MNT/west")" = west ] || fail "get-class"
[ "$("$ANTLER" get-class "$MNT/free")" = copies-2 ] || fail "a directory beside it has another class"

marker=western-$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n')
# holders: the chunkservers in whose folders the marker is found.
holders() {
    local server
    for server in 1 2 3 4 5; do
        ! grep -aqr "$marker" "$DIR/chunkserver-$server" || echo -n "$server "
    done
}
# within WHAT SERVERS: every holder is one of these.
within() {
    local holder
    for holder in $(holders); do
        case " $2 " in *" $holder "*) ;; *) fail "$1: chunkserver-$holder holds what may only be on $2" ;; esac
    done
}
# content N: what file N holds.
content() { yes "$marker $1" | head -c $((20000 + $1 * 997)) || true; }

say "$files files of the class"
for number in $(seq "$files"); do content "$number" >"$MNT/west/$number"; done
sync -f "$MNT"
within "written" "1 2 3"
[ -n "$(holders)" ] || fail "no holder was found: the test looks in the wrong place"
"$ANTLER" get-class "$MNT/west/1" | grep -qx west || fail "a file does not inherit the class"

say "files get a class by their name"
"$ANTLER" class-patterns "$MNT/free" '*.tmp=copies-1' '[a-m]*=west' || fail "class-patterns"
[ "$("$ANTLER" class-patterns "$MNT/free" | tr '\n' ' ')" = '*.tmp=copies-1 [a-m]*=west ' ] || fail "patterns do not show"
mkdir "$MNT/free/z"
for of in a.tmp:copies-1 b:west x:copies-2 z/c:west z/d.tmp:copies-1; do
    # The marker is of what may only be in the west: deleted content may still be on a disk.
    text=${of%:*}
    [ "${of#*:}" != west ] || text="$marker $text"
    echo "$text" >"$MNT/free/${of%:*}"
    [ "$("$ANTLER" get-class "$MNT/free/${of%:*}")" = "${of#*:}" ] || fail "${of%:*} is not of ${of#*:}"
done
! "$ANTLER" class-patterns "$MNT/free" '[a=west' 2>"$WORK/bad.txt" || fail "a bad pattern was taken"
grep -q 'a pattern and a class are wanted' "$WORK/bad.txt" || fail "a bad pattern: $(cat "$WORK/bad.txt")"
! "$ANTLER" class-patterns "$MNT/free" '*=nowhere' 2>"$WORK/bad.txt" || fail "a class that is not there was taken"
"$ANTLER" class-patterns --none "$MNT/free" && [ -z "$("$ANTLER" class-patterns "$MNT/free")" ] || fail "--none"
"$ANTLER" class-patterns -r --none "$MNT/free" || fail "--none -r"

say "a server of it dies, and is repaired within it"
kill_daemon chunkserver 2
for number in $(seq "$files" $((files + 10))); do content "$number" >"$MNT/west/$number"; done
wait_healthy 60
within "repaired" "1 2 3"

say "with one server left new data is refused, and a deficit told"
kill_daemon chunkserver 3
start=$(date +%s)
content 1 >"$WORK/one"
# cp tells of an error of close(2) too, which may be the first to come.
until ! cp "$WORK/one" "$MNT/west/refused" 2>/dev/null; do
    [ "$(seconds_since "$start")" -lt 30 ] || fail "files are still made with one server of two"
    sleep 1
done
echo beside >"$MNT/free/beside" || fail "the class beside it suffers"
antler class list >"$WORK/list.txt" || fail "class list"
grep -q "CAN'T BE MET: .*1 of 2" "$WORK/list.txt" || fail "what can't be met is not told: $(cat "$WORK/list.txt")"
grep -hq "storage class west can't be met" "$DIR"/master-*/log || fail "the log does not say why"
within "refused" "1 2 3"

say "both come back"
cluster_up
wait_healthy 60
for number in $(seq $((files + 10))); do
    content "$number" | cmp - "$MNT/west/$number" || fail "file $number differs"
done

say "a class that changes shows what would move, then moves it"
antler class modify west '2 in dc=east' >"$WORK/plan.txt" || fail "class modify"
grep -q 'chunks have a copy where it does not permit one' "$WORK/plan.txt" || fail "no plan: $(cat "$WORK/plan.txt")"
[ "$(antler class show west | head -n 1 | grep -c 'dc=west')" = 1 ] || fail "it was changed without --yes"
antler class modify west '2 in dc=east' --yes >/dev/null || fail "class modify --yes"
start=$(date +%s)
until [ "$(status '.chunks | (.outside + .missing + .endangered + .under_goal)')" = 0 ]; do
    [ "$(seconds_since "$start")" -lt 90 ] || fail "not moved: $(status .chunks)"
    sleep 0.5
done
moved=$(seconds_since "$start")
"$ANTLER" info "$MNT/west/1" >"$WORK/info.txt"
! grep -q 'dc=west' "$WORK/info.txt" || fail "a copy is still in the west: $(cat "$WORK/info.txt")"
for number in $(seq $((files + 10))); do
    content "$number" | cmp - "$MNT/west/$number" || fail "file $number differs"
done
! mv "$MNT/free/beside" "$MNT/west/" 2>/dev/null || [ "$("$ANTLER" get-class "$MNT/west/beside")" = west ] || fail "a file of another class was renamed in"
cluster_down
figure "classes: $((files + 10)) files in their class throughout, moved to another in $moved s"
