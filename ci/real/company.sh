#!/bin/bash
# The company of two datacentres, 10 ms apart, and a third place: a master, two
# chunkservers of two disks each and a mount in the west and in the east; a master and a
# metalogger in the third. A tree of files comes by rsync into the west's mount, in a
# class that puts a full copy in each site, while git, sqlite3 and a witness work on both
# mounts in the built-in class of two copies. Then a disk answers nothing but EIO, a server
# is killed and its folder wiped, all of the east is killed and cut off, and it comes back.
#
# After each loss: redundancy is back where it can be had; through a new mount of each
# living site every byte of the tree is compared; and what the programs were told is done
# is there. No error reaches a program but for the death of its own mount.
#
# FILES=N sets how many. Needs the right to make network namespaces and TUN devices;
# without it nothing is run, and the exit code is 77.
. "$(dirname "$0")/lib.sh"
files=${FILES:-$(full_or_short 20000 1000)}
# Far from the masters each file waits: a company copies several branches at once.
abreast=16

# --- who is where ------------------------------------------------------------
# Programs work on mounts 1 and 2; mounts 3 and 4 come anew for each comparison.
nodes=(master-1 master-2 master-3 metalogger-1 chunkserver-1 chunkserver-2 chunkserver-3 chunkserver-4
    mount-1 mount-2 mount-3 mount-4 operator-1)
declare -A site=(
    [master-1]=west [chunkserver-1]=west [chunkserver-2]=west [mount-1]=west [mount-3]=west
    [master-2]=east [chunkserver-3]=east [chunkserver-4]=east [mount-2]=east [mount-4]=east
    [master-3]=third [metalogger-1]=third [operator-1]=office
)
disks_of() { printf '%s\n' "$WORK/failing/$1"/disk-{1,2}; }
. "$(dirname "$0")/../sites.sh"
mounts=(mount-1 mount-2)
living=(west east)
declare -A programs_of=([west]=mount-1 [east]=mount-2) viewer=([west]=mount-3 [east]=mount-4)

# --- programs ----------------------------------------------------------------
# Each notes in a journal of its own what it was told is done. They end when a file says
# so, or with their mount; any other end is a failure.
declare -A program=() # by KIND-MOUNT: its process
kinds=(git sqlite)

repository_of() { echo "$WORK/$1/programs-$2/repository"; } # as SITE's mount $1 has MOUNT's
database_of() { echo "$WORK/$1/programs-$2/database"; }

prepare_programs() { # prepare_programs MOUNT
    local at
    mkdir "$WORK/$1/of-$1" "$WORK/$1/programs-$1"
    at=$(repository_of "$1" "$1")
    git init -q "$at" && git -C "$at" config user.name company && git -C "$at" config user.email company@example
    git -C "$at" config core.fsync all && git -C "$at" config gc.auto 0
    sqlite3 "$(database_of "$1" "$1")" 'CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);'
}
content_of() { printf 'line %s of what a program at %s was told is done\n' "$1" "$2"; }

commit_on() { # commit_on MOUNT NUMBER
    local at
    at=$(repository_of "$1" "$1")
    content_of "$2" "$1" >>"$at/log-$(($2 % 7))" && git -C "$at" add . && git -C "$at" commit -qm "number $2" &&
        git -C "$at" rev-parse HEAD >>"$WORK/git-$1.journal"
}
transact_on() { # transact_on MOUNT NUMBER
    sqlite3 "$(database_of "$1" "$1")" "INSERT INTO t VALUES ($2, '$(content_of "$2" "$1")');" &&
        echo "$2" >>"$WORK/sqlite-$1.journal"
}
run_program() { # run_program KIND MOUNT FIRST: until told to stop
    local number=$3
    until [ -e "$WORK/stop-$2" ]; do
        case $1 in git) commit_on "$2" "$number" ;; sqlite) transact_on "$2" "$number" ;; esac || return 1
        number=$((number + 1))
    done
}

start_programs() { # start_programs MOUNT
    local kind at first
    at=$(repository_of "$1" "$1")
    rm -f "$WORK/stop-$1"
    find "$at/.git" -name '*.lock' -delete # what a dead git left
    for kind in "${kinds[@]}"; do
        # A number that was tried without an answer is not tried again.
        first=$(($(cat "$WORK/next-$kind-$1" 2>/dev/null || echo 0) + 1000000))
        echo "$first" >"$WORK/next-$kind-$1"
        run_program "$kind" "$1" "$first" >>"$WORK/$kind-$1.txt" 2>&1 &
        program[$kind-$1]=$!
    done
    write_on "$1"
}
programs_well() { # programs_well MOUNT
    local kind
    writers_well "$1"
    for kind in "${kinds[@]}"; do
        kill -0 "${program[$kind-$1]}" 2>/dev/null || fail "an error reached $kind on $1: $(tail -n 5 "$WORK/$kind-$1.txt")"
    done
}
stop_programs() { # stop_programs MOUNT: at the end of what each is at
    local kind
    programs_well "$1"
    touch "$WORK/stop-$1"
    for kind in "${kinds[@]}"; do
        wait "${program[$kind-$1]}" || fail "an error reached $kind on $1: $(tail -n 5 "$WORK/$kind-$1.txt")"
    done
    stop_writer "$1"
}
bury_programs() { # bury_programs MOUNT: it was killed under them
    local kind
    for kind in "${kinds[@]}"; do wait "${program[$kind-$1]}" || true; done
    stop_writer "$1"
}

# Each looks for what is acknowledged in its journal and not there.
check_git() { # check_git VIEWER MOUNT
    local at found=$WORK/git-$2-at-$1
    at=$(repository_of "$1" "$2")
    git -c safe.directory='*' -C "$at" fsck --full --no-dangling >"$found.fsck.txt" 2>&1 || fail "git fsck of $2 at $1: $(head "$found.fsck.txt")"
    git -c safe.directory='*' -C "$at" rev-list HEAD | sort >"$found.txt"
    sort "$WORK/git-$2.journal" | comm -23 - "$found.txt" >"$found.lost.txt"
    [ ! -s "$found.lost.txt" ] || fail "$(wc -l <"$found.lost.txt") acknowledged commits of $2 are not there at $1"
}
check_sqlite() { # check_sqlite VIEWER MOUNT
    local at verdict found=$WORK/sqlite-$2-at-$1
    at=$(database_of "$1" "$2")
    verdict=$(sqlite3 "$at" 'PRAGMA integrity_check' | head)
    [ "$verdict" = ok ] || fail "the database of $2 at $1: $verdict"
    sqlite3 "$at" 'SELECT id, text FROM t' | sort >"$found.txt"
    while read -r number; do echo "$number|$(content_of "$number" "$2")"; done <"$WORK/sqlite-$2.journal" | sort |
        comm -23 - "$found.txt" >"$found.lost.txt"
    [ ! -s "$found.lost.txt" ] || fail "$(wc -l <"$found.lost.txt") acknowledged rows of $2 are not there at $1: $(head -n 3 "$found.lost.txt")"
}
check_witness() { witness_check "$WORK/$1/of-$2" "$WORK/journal-$2"; }

# --- the tree ----------------------------------------------------------------
# What is in $WORK/source/NAME is copied to NAME on the west's mount.
copy_tree() { # copy_tree NAME FILES SEED
    local began bytes seconds from=$WORK/source/$1 to=$WORK/mount-1/$1
    "$WITNESS" tree "$from" --files "$2" --seed "$3" | tee "$WORK/source.txt"
    mkdir "$to"
    inside mount-1
    "${inside[@]}" "$ANTLER" set-class site-each "$to" || fail "set-class"
    began=$(date +%s)
    find "$from" -mindepth 1 -maxdepth 1 -printf '%f\0' |
        xargs -0 -P "$abreast" -I{} rsync -aH "$from/{}" "$to/" 2>"$WORK/rsync.txt" ||
        fail "rsync: $(head "$WORK/rsync.txt")"
    rsync -a --exclude '*' "$from/" "$to/" 2>>"$WORK/rsync.txt" || fail "rsync of the top"
    [ ! -s "$WORK/rsync.txt" ] || fail "rsync complained: $(head "$WORK/rsync.txt")"
    seconds=$(seconds_since "$began")
    bytes=$(sed -n 's/.*bytes=//p' "$WORK/source.txt")
    figure "company: rsync of $2 files, $((bytes >> 20)) MiB, $abreast abreast, in $seconds s: $(($2 / (seconds + 1))) files/s, with $(leader) leading"
}

check_tree() { # check_tree SITE
    local began tree
    for tree in "$WORK"/source/*; do
        tree=$(basename "$tree")
        began=$(date +%s)
        "$WITNESS" compare "$WORK/source/$tree" "$WORK/${viewer[$1]}/$tree" >"$WORK/compare-$1.txt" || fail "$tree differs in the $1: $(cat "$WORK/compare-$1.txt")"
        say "$tree in the $1, compared in $(seconds_since "$began") s: $(cat "$WORK/compare-$1.txt")"
    done
}
# side_by_side COMMAND...: each a function and its arguments in one word; all must succeed.
side_by_side() {
    local command waited=() one
    for command in "$@"; do
        $command &
        waited+=($!)
    done
    for one in "${waited[@]}"; do wait "$one" || fail "see above"; done
}
# Through a new mount at each living site: every byte of the tree, and what programs were
# told. To look at a database that a dead program left mends it: one site after the other.
compare_all() {
    local place node at checks=()
    for place in "${living[@]}"; do
        at=${viewer[$place]}
        mount_up "$at"
        checks+=("check_tree $place")
        for node in "${mounts[@]}"; do checks+=("check_git $at $node" "check_witness $at $node"); done
    done
    side_by_side "${checks[@]}"
    for place in "${living[@]}"; do
        at=${viewer[$place]} checks=()
        for node in "${mounts[@]}"; do checks+=("check_sqlite $at $node"); done
        side_by_side "${checks[@]}"
        mount_down "$at"
    done
}
done_by() { wc -l <"$WORK/$1-$2.journal" 2>/dev/null || echo 0; }

check_all() { # check_all WHEN
    local place node told=''
    for place in "${living[@]}"; do progress "${programs_of[$place]}"; done
    sleep "$(full_or_short 20 3)" # of work at both sites
    for place in "${living[@]}"; do stop_programs "${programs_of[$place]}"; done
    compare_all
    for node in "${mounts[@]}"; do
        told+="; $node $(done_by git "$node") commits, $(done_by sqlite "$node") transactions, $(acknowledged "$node") synced writes"
    done
    figure "company: $1: every byte is there, seen from ${living[*]}$told"
    for place in "${living[@]}"; do start_programs "${programs_of[$place]}"; done
}

# --- losses ------------------------------------------------------------------
# until_told SECONDS WHAT FILTER: status says true.
until_told() {
    local began
    began=$(date +%s)
    until [ "$(status "$3" 2>/dev/null)" = true ]; do
        [ "$(seconds_since "$began")" -lt "$1" ] || fail "after $1 s not yet: $2; $(status '[.chunks, .repairs] | tojson')"
        sleep 0.5
    done
}
whole='.chunks | (.missing + .endangered + .under_goal + .outside + .misplaced) == 0'
# Whether what programs wrote, in the built-in class, lacks nothing: without the east its
# chunks lie twice in the west. The tree's class allows that no second copy.
programs_redundant() {
    local node
    inside mount-1
    for node in "${mounts[@]}"; do
        timeout 60 "${inside[@]}" "$ANTLER" explain -r --json "$WORK/mount-1/programs-$node" | jq -e '.chunks == .health["at goal"]' >/dev/null || return 1
    done
}

redundant_again() { # redundant_again SINCE WHAT
    until_told "$(full_or_short 900 180)" "every chunk at goal after $2" "$whole"
    figure "company: $2: full redundancy $(seconds_since "$1") s after it; $(status '.chunks | tojson')"
}

lose_disk() {
    local began
    say "a disk of chunkserver-1 answers nothing but EIO"
    began=$(date +%s)
    faultfs eio any chunkserver-1/disk-1
    until_told 180 "the disk is FAILED" '[.servers[].disks[] | select(.failed != "")] | length == 1'
    say "told as failed after $(seconds_since "$began") s"
    redundant_again "$began" "loss of a disk"
}
# A new, empty one stands in its place, and everything is redundant again, before the next
# thing is lost: what is written while its server starts again has one copy less.
replace_disk() {
    local began
    began=$(date +%s)
    end_daemon TERM chunkserver-1
    faultfs clear
    rm -rf "$WORK/failing/chunkserver-1/disk-1"
    mkdir "$WORK/failing/chunkserver-1/disk-1"
    start chunkserver-1
    until_told 60 "the new disk is there" "[.servers[] | select(.address == \"$(address chunkserver-1):7421\" and .alive) | .disks[] | select(.failed == \"\")] | length == 2"
    redundant_again "$began" "a new disk"
}

lose_server() {
    local began
    say "chunkserver-3 is killed, and its folder and disks wiped"
    began=$(date +%s)
    end_daemon KILL chunkserver-3
    rm -rf "$WORK/failing/chunkserver-3" "$DIR/chunkserver-3/identity" "$DIR/chunkserver-3"/disk*
    until_told 90 "the server is away" "[.servers[] | select(.address == \"$(address chunkserver-3):7421\" and .alive)] == []"
    redundant_again "$began" "loss of a server"
}
replace_server() {
    local began
    began=$(date +%s)
    mkdir -p "$WORK/failing/chunkserver-3"/disk-{1,2}
    start chunkserver-3
    until_told 60 "the new server is there" "[.servers[] | select(.address == \"$(address chunkserver-3):7421\" and .alive)] | length == 1"
    redundant_again "$began" "a new server"
}

of_site() { # of_site SITE: its daemons and the mount with programs
    local node
    for node in "${daemons[@]}" "${mounts[@]}"; do [ "${site[$node]}" != "$1" ] || echo "$node"; done
}
# busy NODE SECONDS: percent of a processor that a daemon takes for so long.
busy() {
    local before
    before=$(ticks "$1")
    sleep "$2"
    echo $((($(ticks "$1") - before) * 100 / $(getconf CLK_TCK) / $2))
}
ticks() { sed 's/.*) //' "/proc/${pid[$1]}/stat" | awk '{ print $12 + $13 }'; }

lose_site() {
    local began node before
    before=$(busy "$(leader)" 5)
    say "the east is killed and cut off, with $(leader) leading"
    began=$(date +%s)
    router cut @east all
    for node in $(of_site east); do end_daemon KILL "$node"; done
    umount -l "$WORK/mount-2"
    bury_programs mount-2
    living=(west)
    progress mount-1
    figure "company: loss of a site: its programs are dead, the other's write on $(seconds_since "$began") s after it"
    until_told 120 "both servers of the east are away" "[.servers[] | select(.labels[\"dc\"] == \"east\" and .alive)] == []"
    until programs_redundant; do
        [ "$(seconds_since "$began")" -lt "$(full_or_short 900 180)" ] || fail "what programs wrote is not redundant in the west: $(status .chunks)"
        sleep 0.5
    done
    figure "company: loss of a site: what programs wrote is twice in the west $(seconds_since "$began") s after it; $(status '.chunks | tojson')"
    figure "company: loss of a site: the leader takes $(busy "$(leader)" 5) % of a processor; before it took $before %"
}
regain_site() {
    local began node
    say "the east comes back"
    began=$(date +%s)
    router heal
    for node in $(of_site east); do case $node in mount-*) ;; *) start "$node" ;; esac done
    mount_up mount-2
    living=(west east)
    start_programs mount-2
    progress
    say "programs work at both sites after $(seconds_since "$began") s"
    redundant_again "$began" "return of a site"
}

# --- the run -----------------------------------------------------------------
may_run
need git sqlite3 rsync
began=$(date +%s)
network_up
mapfile -t folders < <(for node in $(roles chunkserver); do echo "$node"/disk-{1,2} | tr ' ' '\n'; done)
failing_disks "${folders[@]}"
configure
daemons_up
tool class create site-each '1 in dc=west, 1 in dc=east' --create '2 in dc=west or dc=east' || fail "class create"
for node in "${mounts[@]}"; do
    mount_up "$node"
    prepare_programs "$node"
    start_programs "$node"
done
mkdir "$WORK/source"
copy_tree tree "$files" 1
redundant_again "$(date +%s)" "rsync"
check_all "after rsync"
lose_disk
check_all "after the loss of a disk"
replace_disk
lose_server
check_all "after the loss of a server"
replace_server
lose_site
copy_tree late $((files / 20)) 2
check_all "with a site lost"
regain_site
check_all "with the site back"
for node in "${mounts[@]}"; do
    stop_programs "$node"
    mount_down "$node"
done
daemons_well
for node in "${daemons[@]}"; do end_daemon TERM "$node"; done
figure "company: $files files, all of it in $(seconds_since "$began") s"
