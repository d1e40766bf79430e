#!/bin/bash
# pjdfstest on the mount, nothing expected to fail, then fsx with three seeds.
. "$(dirname "$0")/lib.sh"
need pjdfstest fsx
operations=$(full_or_short 100000 10000)

cluster_up
cat >"$WORK/pjdfstest.toml" <<'TOML'
[features]
posix_fallocate = {}
utimensat = {}
utime_now = {}
[settings]
naptime = 0.01
[dummy_auth]
entries = [["nobody", "nogroup"], ["daemon", "daemon"]]
TOML
mkdir "$MNT/posix"
chmod 0777 "$MNT/posix"

say "pjdfstest"
# The second file system is for what must answer EXDEV.
second=$WORK/second
[ -z "$PLAIN" ] || second=$(mktemp -d /dev/shm/antler-posix.XXXXXX)
mkdir -p "$second"
(cd "$MNT/posix" && RUST_BACKTRACE=0 NO_COLOR=1 "$TOOLS/pjdfstest" -s "$second" -c "$WORK/pjdfstest.toml" -p "$MNT/posix") >"$WORK/pjdfstest.txt" 2>&1 || true
summary=$(sed 's/\x1b\[[0-9;]*m//g' "$WORK/pjdfstest.txt" | grep -E '^Summary: ') || fail "pjdfstest printed no summary: $(tail -n 3 "$WORK/pjdfstest.txt")"
[ -z "$PLAIN" ] || rm -rf "$second"
figure "pjdfstest: ${summary#Summary: }"
grep -E 'FAILED$' "$WORK/pjdfstest.txt" || true
echo "$summary" | grep -qE ' 0 failed,.* 0 expected failures' || fail "pjdfstest: $summary"
if [ "$(id -u)" != 0 ]; then say "not root: pjdfstest skipped what needs other users"; fi

for seed in 1 2 3; do
    say "fsx, $operations operations, seed $seed"
    "$TOOLS/fsx" -q -N "$operations" -S "$seed" -P "$WORK" "$MNT/fsx-$seed" >"$WORK/fsx-$seed.txt" 2>&1 ||
        fail "fsx with seed $seed: $(tail -n 20 "$WORK/fsx-$seed.txt")"
    figure "fsx: seed $seed, $operations operations, no difference"
done
cluster_down
