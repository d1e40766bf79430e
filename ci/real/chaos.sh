#!/bin/bash
# Faults of network, processes and disks, round after round, on a cluster of two sites
# that are 10 ms apart: three masters, a metalogger, two chunkservers and a mount in
# each site, every one in a network namespace of its own behind antler-router. A writer
# on each mount notes what was acknowledged; no error reaches it unless its own mount
# was killed, and in the end everything acknowledged is read back by the other site's
# mount with an empty cache, every chunk is at goal, and writers make progress.
#
# SEED=N repeats what was drawn (not the instants), ROUNDS=N sets how many, ONLY="..."
# names the faults to draw from. Needs the right to make network namespaces and TUN
# devices; without it nothing is run, and the exit code is 77.
. "$(dirname "$0")/lib.sh"
ROUTER=$BUILD/antler-router
seed=${SEED:-$(date +%s)}
rounds=${ROUNDS:-$(full_or_short 200 16)}
every=50 # rounds from one check to the next
RANDOM=$((seed % 32768))

# --- who is where ------------------------------------------------------------
nodes=(master-1 master-2 master-3 metalogger-1 chunkserver-1 chunkserver-2 chunkserver-3 chunkserver-4 mount-1 mount-2 operator-1)
declare -A site=(
    [master-1]=west [master-2]=east [master-3]=west [metalogger-1]=east
    [chunkserver-1]=west [chunkserver-2]=west [chunkserver-3]=east [chunkserver-4]=east
    [mount-1]=west [mount-2]=east [operator-1]=office
)
daemons=("${nodes[@]:0:8}")
prefix=ant$$
address() { # address NODE
    local at
    for at in "${!nodes[@]}"; do [ "${nodes[at]}" != "$1" ] || echo "10.91.7.$((at + 1))"; done
}
namespace() { echo "$prefix-$1"; }
# inside NODE: what runs a command in its namespace of the network, and only of that, as
# the words of $inside: no process stands between the shell and the command.
inside() { inside=(nsenter --net="/run/netns/$(namespace "$1")"); }
all_masters=$(address master-1):7420,$(address master-2):7420,$(address master-3):7420
status() {
    inside operator-1
    timeout 30 "${inside[@]}" "$ANTLER" status --json \
        --master "$all_masters" --key "$DIR/cluster.key" | jq -r "$1"
}

# --- network -----------------------------------------------------------------
remove_namespaces() { # answers with the code that the script ends with
    local code=$? node
    set +e
    # shellcheck disable=SC2046
    signal_pids KILL $(our_pids)
    for node in "${nodes[@]}"; do ip netns del "$(namespace "$node")" 2>/dev/null || true; done
    return "$code"
}
trap 'remove_namespaces; cleanup' EXIT

router() { "$ROUTER" control "$WORK/router" "$@" >>"$WORK/router.log" || fail "router $*"; }

network_up() {
    local node arguments=()
    for node in "${nodes[@]}"; do
        ip netns add "$(namespace "$node")" || fail "no namespace for $node"
        ip -n "$(namespace "$node")" link set lo up
        arguments+=(--node "$node=${site[$node]},$(namespace "$node"),$(address "$node")")
    done
    "$ROUTER" run --control "$WORK/router" --seed "$seed" "${arguments[@]}" 2>>"$WORK/router.log" &
    local router=$!
    until [ -S "$WORK/router" ]; do
        kill -0 "$router" 2>/dev/null || fail "router: $(cat "$WORK/router.log")"
        sleep 0.1
    done
    for node in "${nodes[@]}"; do
        ip -n "$(namespace "$node")" addr add "$(address "$node")/24" dev ant0
        ip -n "$(namespace "$node")" link set ant0 mtu 9000 up
    done
}

may_run() {
    need jq ip nsenter unshare
    unshare --net true 2>/dev/null && ip netns list >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && : 2>/dev/null <>/dev/net/tun
}

# --- disks -------------------------------------------------------------------
# The west's lie on a layer that fails on demand, the east's on small disks of memory.
faultfs() { "$FAULTFS" control "$WORK/faultfs" "$@" >>"$WORK/faultfs.log" || fail "faultfs $*"; }
disk_of() {
    case ${site[$1]} in west) echo "$WORK/failing/$1" ;; *) echo "$WORK/small/$1" ;; esac
}

disks_up() {
    local node
    mkdir -p "$WORK/backing" "$WORK/failing" "$WORK/small/chunkserver-3" "$WORK/small/chunkserver-4"
    "$FAULTFS" mount "$WORK/backing" "$WORK/failing" --control "$WORK/faultfs" --seed "$seed" 2>>"$WORK/faultfs.log" &
    local layer=$!
    until [ -S "$WORK/faultfs" ]; do
        kill -0 "$layer" 2>/dev/null || fail "faultfs: $(cat "$WORK/faultfs.log")"
        sleep 0.1
    done
    mkdir "$WORK/failing/chunkserver-1" "$WORK/failing/chunkserver-2"
    for node in chunkserver-3 chunkserver-4; do mount -t tmpfs -o size=512m antler-chaos "$WORK/small/$node"; done
}

# --- daemons -----------------------------------------------------------------
configure() {
    local node member
    mkdir -p "$DIR"
    "$ANTLER" keygen "$DIR/cluster.key" >/dev/null
    for node in "${daemons[@]}"; do
        mkdir "$DIR/$node"
        case $node in
            chunkserver-*)
                printf 'listen = "%s:7421"\nkey = "../cluster.key"\nmasters = ["%s"]\ndisks = ["%s"]\n\n[labels]\ndc = "%s"\n' \
                    "$(address "$node")" "${all_masters//,/\", \"}" "$(disk_of "$node")" "${site[$node]}"
                ;;
            *)
                printf 'number = %s\nlisten = "%s:7420"\nkey = "../cluster.key"\n' "$(number_of "$node")" "$(address "$node")"
                case $node in master-*) echo 'copies = 2' ;; esac
                for member in master-1 master-2 master-3 metalogger-1; do
                    printf '\n[[member]]\nnumber = %s\nrole = "%s"\naddress = "%s:7420"\n' \
                        "$(number_of "$member")" "${member%-*}" "$(address "$member")"
                done
                ;;
        esac >"$DIR/$node/config.toml"
    done
}
number_of() { case $1 in metalogger-*) echo $((100 + ${1#*-})) ;; *) echo "${1#*-}" ;; esac }

declare -A pid=()
start() { # start NODE, unless it runs
    local node=$1
    ! runs "$node" || return 0
    inside "$node"
    "${inside[@]}" "$ANTLER" "${node%-*}" --config "$DIR/$node/config.toml" >>"$DIR/$node/log" 2>&1 &
    pid[$node]=$!
    disown
}
runs() { # whether NODE's process is there; looked at once, as it may end at any time
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/${pid[$1]:-none}/status" 2>/dev/null) || true
    [ -n "$state" ] && [ "$state" != Z ]
}
end_daemon() { # end_daemon SIGNAL NODE, and waits until it is gone
    local began
    runs "$2" || return 0
    kill "-$1" "${pid[$2]}"
    began=$(date +%s)
    while runs "$2"; do
        [ "$(seconds_since "$began")" -lt 60 ] || fail "$2 did not end after SIG$1"
        sleep 0.05
    done
}

mount_up() { # mount_up NODE
    local node=$1 at=$WORK/$1 began
    mkdir -p "$at"
    inside "$node"
    "${inside[@]}" "$ANTLER" mount "$all_masters:/" "$at" -f -o "key=$DIR/cluster.key,label=dc:${site[$node]}" >>"$WORK/$node.log" 2>&1 &
    pid[$node]=$!
    disown
    began=$(date +%s)
    until mountpoint -q "$at"; do
        runs "$node" || fail "$node: $(tail -n 5 "$WORK/$node.log")"
        [ "$(seconds_since "$began")" -lt 90 ] || fail "$node did not come up: $(tail -n 5 "$WORK/$node.log")"
        sleep 0.1
    done
}
mount_down() { # mount_down NODE
    timeout 120 umount "$WORK/$1" || fail "$1 could not be unmounted"
    local began
    began=$(date +%s)
    while runs "$1"; do
        [ "$(seconds_since "$began")" -lt 60 ] || fail "$1 runs on after its umount"
        sleep 0.1
    done
}

# --- writers -----------------------------------------------------------------
declare -A writer=() run=()
write_on() { # write_on NODE: a new run, until it is stopped or its mount dies
    local node=$1
    run[$node]=$((${run[$node]:-0} + 1))
    "$WITNESS" write "$WORK/$node/of-$node" --journal "$WORK/journal-$node" --run "${run[$node]}" --threads 2 \
        --seconds 100000 --largest 70000 >"$WORK/write-$node-${run[$node]}.txt" 2>&1 &
    writer[$node]=$!
    disown
}
stop_writer() { # the try that it leaves behind may have happened or not
    kill -TERM "${writer[$1]}" 2>/dev/null || true
    local began
    began=$(date +%s)
    while [ -d "/proc/${writer[$1]}" ]; do
        [ "$(seconds_since "$began")" -lt 120 ] || fail "the writer on $1 does not end: $(cat "/proc/${writer[$1]}/wchan")"
        sleep 0.1
    done
}
writers_well() {
    local node
    for node in mount-1 mount-2; do
        [ -d "/proc/${writer[$node]}" ] || fail "an error reached the writer on $node: $(cat "$WORK/write-$node-${run[$node]}.txt")"
    done
}
acknowledged() {
    local count
    count=$(grep -c '^ack' "$WORK/journal-$1" 2>/dev/null) || true
    echo "${count:-0}"
}

# --- faults ------------------------------------------------------------------
draw() { drawn=$((RANDOM % $1)); }
pick() { # pick WORD...: one of them, in $picked
    draw $#
    shift "$drawn"
    picked=$1
}
faults=(kill-chunkserver kill-master kill-leader kill-metalogger kill-mount restart-chunkserver cut-sites
    cut-one-way isolate lossy slow narrow eio-writes eio-syncs eio-reads slow-disk full-disk)
# shellcheck disable=SC2206
[ -z "${ONLY:-}" ] || faults=($ONLY)
# What of a round must be undone at its end.
down=() filled=() spoilt=''

strike() { # strike FAULT: tells in $told what it did
    local one other percent
    told=$1
    case $1 in
        kill-chunkserver) pick chunkserver-{1..4} && down+=("$picked") && end_daemon KILL "$picked" ;;
        restart-chunkserver) pick chunkserver-{1..4} && down+=("$picked") && end_daemon TERM "$picked" ;;
        kill-master) pick master-{1..3} && down+=("$picked") && end_daemon KILL "$picked" ;;
        kill-metalogger) picked=metalogger-1 && down+=("$picked") && end_daemon KILL "$picked" ;;
        kill-leader)
            picked=$(status '.members[] | select(.role == "leader") | .name' 2>/dev/null) || picked=
            [ -n "$picked" ] || picked=master-1
            down+=("$picked") && end_daemon KILL "$picked"
            ;;
        kill-mount)
            pick mount-1 mount-2
            down+=("$picked") && end_daemon KILL "$picked"
            ;;
        cut-sites) picked='west east' && router cut @west @east ;;
        cut-one-way)
            pick "${nodes[@]:0:10}" && one=$picked
            pick "${nodes[@]:0:10}" && other=$picked
            picked="$one to $other" && router cut from "$one" to "$other"
            ;;
        isolate) pick "${nodes[@]:0:10}" && router cut "$picked" all ;;
        lossy)
            draw 20 && percent=$((drawn + 1))
            pick @west @east "${nodes[@]:0:10}" && router loss "$percent" "$picked" all
            picked="$picked $percent %"
            ;;
        slow) draw 200 && picked="$((drawn + 20)) ms" && router delay "$((drawn + 20))" @west @east && router jitter 20 @west @east ;;
        narrow) draw 2000 && picked="$((drawn + 200)) KiB/s" && router rate "$((drawn + 200))" @west @east ;;
        eio-writes) spoil && faultfs eio write "$spoilt/" ;;
        eio-syncs) draw 50 && percent=$((drawn + 10)) && spoil && faultfs eio sync "$spoilt/" "percent=$percent" ;;
        eio-reads) draw 50 && percent=$((drawn + 10)) && spoil && faultfs eio read "$spoilt/" "percent=$percent" ;;
        slow-disk) draw 100 && pick chunkserver-1 chunkserver-2 && faultfs delay "$((drawn + 1))" any "$picked/" percent=50 ;;
        full-disk)
            pick chunkserver-3 chunkserver-4
            filled+=("$(disk_of "$picked")/filler")
            fallocate -l "$(df --output=avail -B1 "$(disk_of "$picked")" | tail -n 1)" "$(disk_of "$picked")/filler" 2>/dev/null || true
            ;;
        *) fail "no fault is called $1" ;;
    esac
    told="$told $picked"
}
# One disk at a time: what a server gave up stays so until it is started again.
spoil() {
    [ -n "$spoilt" ] || { pick chunkserver-1 chunkserver-2 && spoilt=$picked; }
    picked=$spoilt
}
unspoil() {
    [ -n "$spoilt" ] || return 0
    end_daemon TERM "$spoilt"
    start "$spoilt"
    spoilt=''
}

heal() {
    local node
    router heal
    faultfs clear
    [ ${#filled[@]} -eq 0 ] || rm -f "${filled[@]}"
    for node in "${down[@]}"; do
        case $node in
            mount-*)
                ! runs "$node" || continue # named twice
                umount -l "$WORK/$node" 2>/dev/null || true
                stop_writer "$node"
                mount_up "$node"
                write_on "$node"
                ;;
            *) start "$node" ;;
        esac
    done
    down=() filled=()
}

round() { # round NUMBER
    local fault tale=''
    pick "${faults[@]}" && strike "$picked" && tale=$told
    draw 3
    if [ "$drawn" = 0 ]; then
        pick "${faults[@]}" && fault=$picked
        sleep 0.5
        strike "$fault" && tale="$tale, $told"
    fi
    draw 25
    say "round $1: $tale; for $((drawn / 10)).$((drawn % 10)) s"
    sleep "$((drawn / 10)).$((drawn % 10))"
    heal
    draw 2
    [ "$drawn" = 1 ] || unspoil
    draw 15
    sleep "$((drawn / 10)).$((drawn % 10))"
    writers_well
}

# --- checks ------------------------------------------------------------------
progress() { # everything healed: both writers are answered again
    local node before began
    for node in mount-1 mount-2; do
        before=$(acknowledged "$node")
        began=$(date +%s)
        until [ "$(acknowledged "$node")" -gt $((before + 20)) ]; do
            [ "$(seconds_since "$began")" -lt 90 ] || fail "no progress on $node: $(acknowledged "$node") acknowledged; chunks: $(status .chunks)"
            sleep 0.2
        done
        say "$node writes on after $(seconds_since "$began") s"
    done
}

check_all() {
    local node acks
    unspoil
    for node in "${daemons[@]}"; do runs "$node" || fail "$node ended by itself: $(tail -n 5 "$DIR/$node/log")"; done
    progress
    writers_well
    for node in mount-1 mount-2; do
        stop_writer "$node"
        mount_down "$node"
    done
    wait_healthy 240
    for node in mount-1 mount-2; do mount_up "$node"; done
    witness_check "$WORK/mount-2/of-mount-1" "$WORK/journal-mount-1"
    witness_check "$WORK/mount-1/of-mount-2" "$WORK/journal-mount-2"
    acks=$(($(acknowledged mount-1) + $(acknowledged mount-2)))
    figure "chaos: after $1 rounds $acks acknowledged writes are there; $("$ROUTER" control "$WORK/router" counts)"
}

# --- the run -----------------------------------------------------------------
if [ -n "$PLAIN" ] || ! may_run; then
    say "NOT RUN: needs the right to make network namespaces and TUN devices (root), and no PLAIN_DIR"
    exit 77
fi
say "seed $seed, $rounds rounds of: ${faults[*]}"
network_up
disks_up
configure
for node in "${daemons[@]}"; do start "$node"; done
began=$(date +%s)
until [ "$(status '[.servers[]] | length' 2>/dev/null)" = 4 ]; do
    [ "$(seconds_since "$began")" -lt 90 ] || fail "the cluster did not come up: $(status .)"
    sleep 0.5
done
for node in mount-1 mount-2; do
    mount_up "$node"
    mkdir "$WORK/$node/of-$node"
    write_on "$node"
done
progress
began=$(date +%s)
for number in $(seq "$rounds"); do
    round "$number"
    if [ $((number % every)) = 0 ] && [ "$number" -lt "$rounds" ]; then
        check_all "$number"
        for node in mount-1 mount-2; do write_on "$node"; done
    fi
done
check_all "$rounds"
figure "chaos: seed $seed, $rounds rounds in $(seconds_since "$began") s"
for node in mount-1 mount-2; do mount_down "$node"; done
for node in "${daemons[@]}"; do end_daemon TERM "$node"; done
