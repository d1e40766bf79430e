# Shared by what runs a cluster spread over sites: every daemon and mount in a network
# namespace of its own, their packets forwarded by antler-router. Owns the namespaces,
# the router, the layer of failing disks, the configurations, the processes of each node,
# and a witness on each mount; lib.sh, sourced before it, owns the folder and the end of
# everything.
#
# Who sources it has said which nodes there are, and where:
#   nodes           each ROLE-NUMBER, and operator-1, from where the tools ask
#   site            of each node
#   disks_of NODE   prints the folders of a chunkserver's disks
#   router_options  more arguments of the router, if wanted
#
# Needs the right to make network namespaces and TUN devices: `may_run` tells.
# shellcheck shell=bash
ROUTER=$BUILD/antler-router
prefix=ant$$

# roles ROLE...: the nodes of these roles, one a line.
roles() {
    local role
    for role in "$@"; do printf '%s\n' "${nodes[@]}" | grep "^$role-" || true; done
}
mapfile -t members < <(roles master metalogger)
mapfile -t daemons < <(roles master metalogger chunkserver)
mapfile -t mounts < <(roles mount)

address() { # address NODE
    local at
    for at in "${!nodes[@]}"; do [ "${nodes[at]}" != "$1" ] || echo "10.91.7.$((at + 1))"; done
}
namespace() { echo "$prefix-$1"; }
# inside NODE: what runs a command in its namespace of the network, and only of that, as
# the words of $inside: no process stands between the shell and the command.
inside() { inside=(nsenter --net="/run/netns/$(namespace "$1")"); }
all_masters=$(roles master | while read -r node; do echo "$(address "$node"):7420"; done | paste -sd,)

# tool COMMAND...: one of the cluster's tools, from the operator's place.
tool() {
    inside operator-1
    timeout 60 "${inside[@]}" "$ANTLER" "$@" --master "$all_masters" --key "$DIR/cluster.key"
}
status() { tool status --json | jq -r "$1"; }
leader() { status '.members[] | select(.role == "leader") | .name' 2>/dev/null || true; }

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
    "$ROUTER" run --control "$WORK/router" --seed "${seed:-1}" "${router_options[@]}" "${arguments[@]}" 2>>"$WORK/router.log" &
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

# may_run: or else says so and ends with 77, which ci/test takes for NOT RUN.
may_run() {
    if [ -n "$PLAIN" ] || ! has_rights; then
        say "NOT RUN: needs the right to make network namespaces and TUN devices (root), and no PLAIN_DIR"
        exit 77
    fi
}
has_rights() {
    need jq ip nsenter unshare
    unshare --net true 2>/dev/null && ip netns list >/dev/null 2>&1 && [ "$(id -u)" = 0 ] && : 2>/dev/null <>/dev/net/tun
}

# --- disks -------------------------------------------------------------------
faultfs() { "$FAULTFS" control "$WORK/faultfs" "$@" >>"$WORK/faultfs.log" || fail "faultfs $*"; }

# failing_disks FOLDER...: in $WORK/failing, on a layer that fails on demand.
failing_disks() {
    mkdir -p "$WORK/backing" "$WORK/failing"
    "$FAULTFS" mount "$WORK/backing" "$WORK/failing" --control "$WORK/faultfs" --seed "${seed:-1}" 2>>"$WORK/faultfs.log" &
    local layer=$! folder
    until [ -S "$WORK/faultfs" ]; do
        kill -0 "$layer" 2>/dev/null || fail "faultfs: $(cat "$WORK/faultfs.log")"
        sleep 0.1
    done
    for folder in "$@"; do mkdir -p "$WORK/failing/$folder"; done
}

# --- daemons -----------------------------------------------------------------
configure() {
    local node member disks
    mkdir -p "$DIR"
    "$ANTLER" keygen "$DIR/cluster.key" >/dev/null
    for node in "${daemons[@]}"; do
        mkdir "$DIR/$node"
        case $node in
            chunkserver-*)
                mapfile -t disks < <(disks_of "$node")
                printf -v disks '"%s", ' "${disks[@]}"
                printf 'listen = "%s:7421"\nkey = "../cluster.key"\nmasters = ["%s"]\ndisks = [%s]\n\n[labels]\ndc = "%s"\n' \
                    "$(address "$node")" "${all_masters//,/\", \"}" "${disks%, }" "${site[$node]}"
                ;;
            *)
                printf 'number = %s\nlisten = "%s:7420"\nkey = "../cluster.key"\n' "$(number_of "$node")" "$(address "$node")"
                case $node in master-*) echo 'copies = 2' ;; esac
                for member in "${members[@]}"; do
                    printf '\n[[member]]\nnumber = %s\nrole = "%s"\naddress = "%s:7420"\n' \
                        "$(number_of "$member")" "${member%-*}" "$(address "$member")"
                done
                ;;
        esac >"$DIR/$node/config.toml"
    done
}
number_of() { case $1 in metalogger-*) echo $((100 + ${1#*-})) ;; *) echo "${1#*-}" ;; esac }

# Starts all daemons, and waits until every chunkserver has come.
daemons_up() {
    local node began servers
    for node in "${daemons[@]}"; do start "$node"; done
    servers=$(roles chunkserver | wc -l)
    began=$(date +%s)
    until [ "$(status '[.servers[]] | length' 2>/dev/null)" = "$servers" ]; do
        [ "$(seconds_since "$began")" -lt 90 ] || fail "the cluster did not come up: $(status .)"
        sleep 0.5
    done
}
daemons_well() {
    local node
    for node in "${daemons[@]}"; do runs "$node" || fail "$node ended by itself: $(tail -n 5 "$DIR/$node/log")"; done
}

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
writers_well() { # writers_well [MOUNT...]: no error reached them
    local node
    [ $# -gt 0 ] || set -- "${mounts[@]}"
    for node in "$@"; do
        [ -d "/proc/${writer[$node]}" ] || fail "an error reached the writer on $node: $(cat "$WORK/write-$node-${run[$node]}.txt")"
    done
}
acknowledged() {
    local count
    count=$(grep -c '^ack' "$WORK/journal-$1" 2>/dev/null) || true
    echo "${count:-0}"
}
progress() { # progress [MOUNT...]: writers, by default all, are answered again
    local node before began
    [ $# -gt 0 ] || set -- "${mounts[@]}"
    for node in "$@"; do
        before=$(acknowledged "$node")
        began=$(date +%s)
        until [ "$(acknowledged "$node")" -gt $((before + 20)) ]; do
            [ "$(seconds_since "$began")" -lt 90 ] || fail "no progress on $node: $(acknowledged "$node") acknowledged; chunks: $(status .chunks)"
            sleep 0.2
        done
        say "$node writes on after $(seconds_since "$began") s"
    done
}
