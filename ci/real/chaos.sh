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
. "$(dirname "$0")/../sites.sh"

# --- disks -------------------------------------------------------------------
# The west's lie on a layer that fails on demand, the east's on small disks of memory.
disks_of() {
    case ${site[$1]} in west) echo "$WORK/failing/$1" ;; *) echo "$WORK/small/$1" ;; esac
}

disks_up() {
    local node
    failing_disks chunkserver-1 chunkserver-2
    mkdir -p "$WORK/small/chunkserver-3" "$WORK/small/chunkserver-4"
    for node in chunkserver-3 chunkserver-4; do mount -t tmpfs -o size=512m antler-chaos "$WORK/small/$node"; done
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
            picked=$(leader)
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
            filled+=("$(disks_of "$picked")/filler")
            fallocate -l "$(df --output=avail -B1 "$(disks_of "$picked")" | tail -n 1)" "$(disks_of "$picked")/filler" 2>/dev/null || true
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
check_all() {
    local node acks
    unspoil
    daemons_well
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
may_run
say "seed $seed, $rounds rounds of: ${faults[*]}"
network_up
disks_up
configure
daemons_up
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
