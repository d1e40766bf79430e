# Shared by the tests on real daemons: starts a cluster in a temporary folder,
# waits for it, kills what it is told to, and cleans up whatever happens.
#
# A test sources this file with its own arguments, then calls `cluster_up`.
# Arguments: --short runs smaller figures (for ci/test), --keep leaves the
# temporary folder. With PLAIN_DIR=1 in the environment the "mount" is a plain
# folder and nothing is killed: that tests the test.
#
# Only processes that carry the temporary folder's name in their command line
# are ever signalled, so tests may run beside other clusters.
# shellcheck shell=bash

set -euo pipefail
shopt -s nullglob

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=${ANTLER_BUILD:-$ROOT/target/release}
ANTLER=$BUILD/antler
WITNESS=$BUILD/antler-witness
FAULTFS=$BUILD/antler-faultfs
TOOLS=$ROOT/target/tools/bin
NAME=$(basename "$0" .sh)
PLAIN=${PLAIN_DIR:+yes}
SHORT='' KEEP=''
for argument in "$@"; do
    case $argument in
        --short) SHORT=yes ;;
        --keep) KEEP=yes ;;
        *) echo "usage: $0 [--short] [--keep]" >&2; exit 2 ;;
    esac
done

WORK=$(mktemp -d "${TMPDIR:-/tmp}/antler-$NAME.XXXXXX")
# Other users come by: pjdfstest switches to some.
chmod 0755 "$WORK"
DIR=$WORK/data
MNT=$WORK/mnt
LOGS=$ROOT/target/ci/real/$NAME

say() { printf '%s  %s\n' "$(date +%T)" "$*"; }
figure() { printf 'figure: %s\n' "$*"; }
fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}
# full_or_short FULL SHORT: the figure for this run.
full_or_short() { if [ -n "$SHORT" ]; then echo "$2"; else echo "$1"; fi; }
seconds_since() { echo $(($(date +%s) - $1)); }
# until_is SECONDS WHAT VALUE COMMAND...: waits for what a command says.
until_is() {
    local start seconds=$1 what=$2 value=$3
    start=$(date +%s)
    shift 3
    until [ "$("$@")" = "$value" ]; do
        [ "$(seconds_since "$start")" -lt "$seconds" ] || fail "$what: $("$@") and not $value; $(status .chunks)"
        sleep 0.3
    done
}
# compare_files FOLDER WHEN: files 1 to $files are as `content` says, read from the chunkservers.
compare_files() {
    local number
    for number in $(seq "$files"); do
        content "$number" | cmp - <(dd if="$1/$number" bs=1M iflag=direct status=none) || fail "$2: file $number differs"
    done
}

# --- what is ours, and its end ---------------------------------------------

# our_pids [PART]: processes of this test's cluster whose command line holds PART.
our_pids() {
    local exe line
    find /proc/[0-9]*/exe -maxdepth 0 -lname "$(readlink -f "$ANTLER")" 2>/dev/null | while read -r exe; do
        line=$({ tr '\0' ' ' <"${exe%/exe}/cmdline"; } 2>/dev/null) || continue
        exe=${exe%/exe}
        case $line in *"$WORK"/*"${1:-}"*) echo "${exe#/proc/}" ;; esac
    done || true
}

# listening_ports PIDS...: the TCP ports they listen on.
listening_ports() {
    local pid hex
    for pid in "$@"; do
        readlink "/proc/$pid"/fd/* 2>/dev/null | sed -n 's/^socket:\[\(.*\)\]$/\1/p' || true
    done | sort -u | awk 'NR == FNR { mine[$1]; next } $4 == "0A" && ($10 in mine) { n = split($2, part, ":"); print part[n] }' \
        - /proc/net/tcp /proc/net/tcp6 | sort -u | while read -r hex; do echo $((16#$hex)); done
}

our_mounts() { awk -v work="$WORK/" 'index($2, work) == 1 { print $2 }' /proc/mounts | tac; }

unmount_ours() {
    local mount
    for mount in $(our_mounts); do
        umount "$mount" 2>/dev/null || umount -l "$mount" 2>/dev/null || fusermount3 -uz "$mount" || true
    done
}

signal_pids() {
    local signal=$1
    shift
    [ $# -eq 0 ] || kill "-$signal" "$@" 2>/dev/null || true
}

save_logs() {
    rm -rf "$LOGS"
    mkdir -p "$LOGS"
    local log
    for log in "$WORK"/*.log "$WORK"/*.txt; do cp "$log" "$LOGS/"; done
    for log in "$DIR"/*/log "$DIR"/*/config.toml; do
        cp "$log" "$LOGS/$(basename "$(dirname "$log")")-$(basename "$log")" 2>/dev/null || true
    done
    say "logs are in ${LOGS#"$ROOT"/}"
}

cleanup() {
    local code=$?
    trap - EXIT INT TERM
    set +e
    # shellcheck disable=SC2046
    signal_pids TERM $(jobs -p)
    [ "$code" -eq 0 ] || save_logs
    if [ -z "$PLAIN" ] && [ -d "$DIR" ]; then
        timeout 30 "$ANTLER" down --dir "$DIR" >/dev/null 2>&1
    fi
    # shellcheck disable=SC2046
    signal_pids KILL $(our_pids)
    unmount_ours
    if [ -n "$KEEP" ]; then say "kept $WORK"; else rm -rf --one-file-system "$WORK"; fi
    exit "$code"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# --- the cluster -------------------------------------------------------------

# cluster_up ARGUMENTS...: `antler up`; may be called again after a crash.
cluster_up() {
    mkdir -p "$MNT"
    [ -z "$PLAIN" ] || return 0
    [ -x "$ANTLER" ] || fail "$ANTLER is not built"
    if ! timeout 120 "$ANTLER" up --dir "$DIR" --mount "$MNT" --detach "$@" >>"$WORK/up.log" 2>&1; then
        tail -n 30 "$WORK/up.log" >&2
        fail "antler up did not bring the cluster up"
    fi
    stat -f "$MNT" >/dev/null || fail "up returned, but the mount does not answer"
}

cluster_down() {
    local mount start
    [ -z "$PLAIN" ] || return 0
    for mount in "${SECOND_MOUNTS[@]}"; do
        umount "$mount" || fail "$mount could not be unmounted"
    done
    SECOND_MOUNTS=()
    timeout 120 "$ANTLER" down --dir "$DIR" >>"$WORK/up.log" 2>&1 || fail "antler down"
    # The second mounts' processes end by themselves, a moment after their umount.
    start=$(date +%s)
    until [ -z "$(our_pids mount)" ] || [ "$(seconds_since "$start")" -ge 10 ]; do sleep 0.1; done
    [ -z "$(our_pids)" ] || fail "down returned, but these still run: $(our_pids | tr '\n' ' ')"
}

# antler COMMAND...: one of the cluster's tools.
antler() { timeout 60 "$ANTLER" "$@" --dir "$DIR"; }

# listens N: the address of chunkserver N.
listens() { sed -n 's/^listen = "\(.*\)"$/\1/p' "$DIR/chunkserver-$1/config.toml"; }

# status FILTER: what jq's FILTER finds in `antler status --json`.
status() { timeout 30 "$ANTLER" status --json --dir "$DIR" | jq -r "$1"; }

# How many chunks are not as they should be.
chunks_wanting() { status '.chunks | (.missing + .endangered + .under_goal)' 2>/dev/null || echo unknown; }

# wait_healthy SECONDS: every chunk at goal.
wait_healthy() {
    [ -z "$PLAIN" ] || return 0
    local start wanting
    start=$(date +%s)
    while wanting=$(chunks_wanting) && [ "$wanting" != 0 ]; do
        [ "$(seconds_since "$start")" -lt "$1" ] || fail "after $1 s still $wanting chunks below goal: $(status .chunks)"
        sleep 0.5
    done
    say "every chunk at goal after $(seconds_since "$start") s: $(status '.chunks | tojson')"
}

# pid_of ROLE NUMBER: from its pid file, if that process is ours.
pid_of() {
    local pid
    pid=$(cat "$DIR/$1-$2/pid") || fail "no pid file of $1-$2"
    our_pids | grep -x "$pid" >/dev/null || fail "the pid file of $1-$2 says $pid, which is not a process of this cluster"
    echo "$pid"
}

# kill_daemon ROLE NUMBER: SIGKILL, and waits until it is gone.
kill_daemon() {
    [ -z "$PLAIN" ] || return 0
    local pid
    pid=$(pid_of "$1" "$2")
    kill -KILL "$pid"
    while [ -d "/proc/$pid" ] && ! grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null; do sleep 0.05; done
    say "killed $1-$2 ($pid)"
}

# Everything of the cluster at once, mounts included.
kill_everything() {
    [ -z "$PLAIN" ] || return 0
    local pids
    mapfile -t pids < <(our_pids)
    [ ${#pids[@]} -gt 0 ] || fail "nothing to kill"
    signal_pids KILL "${pids[@]}"
    while [ -n "$(our_pids)" ]; do sleep 0.05; done
    umount -l "$MNT" 2>/dev/null || fusermount3 -uz "$MNT" 2>/dev/null || true
}

# The number of the master that leads.
leader() { status '.members[] | select(.role == "leader") | .name' | sed 's/.*-//'; }

# The addresses of all masters, as `antler mount` takes them.
masters() { status '[.members[] | select(.name | startswith("master")) | .address] | join(",")'; }

SECOND_MOUNTS=()

# second_mount PATH [OPTIONS]: another client on the same cluster.
second_mount() {
    if [ -n "$PLAIN" ]; then
        ln -s "$MNT" "$1"
        return 0
    fi
    mkdir -p "$1"
    "$ANTLER" mount "$(masters):/" "$1" -o "key=$DIR/cluster.key${2:+,$2}" >>"$WORK/mount.log" 2>&1 &
    local start
    start=$(date +%s)
    until mountpoint -q "$1"; do
        [ "$(seconds_since "$start")" -lt 30 ] || fail "the second mount did not come up: $(tail -n 5 "$WORK/mount.log")"
        sleep 0.1
    done
    SECOND_MOUNTS+=("$1")
}

# --- witnesses ---------------------------------------------------------------

# witness_check FOLDER JOURNAL: everything acknowledged is there.
witness_check() {
    "$WITNESS" check "$1" --journal "$2" ${PLAIN:+--granule 512} | tee -a "$WORK/check.txt" || fail "acknowledged writes are missing or wrong"
}

need() {
    local program
    for program in "$@"; do
        command -v "$program" >/dev/null || [ -x "$TOOLS/$program" ] || fail "needs $program (ci/tools installs it)"
    done
}
