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
(cd "$MNT/posix" && "$TOOLS/pjdfstest" -c "$WORK/pjdfstest.toml" -p "$MNT/posix") >"$WORK/pjdfstest.txt" 2>&1 || true
summary=$(grep -E '^Tests: ' "$WORK/pjdfstest.txt") || fail "pjdfstest printed no summary: $(tail -n 3 "$WORK/pjdfstest.txt")"
figure "pjdfstest: $summary"
grep -E 'FAILED$' "$WORK/pjdfstest.txt" || true
echo "$summary" | grep -qE '\b0 failed' || fail "pjdfstest: $summary"
if [ "$(id -u)" != 0 ]; then say "not root: pjdfstest skipped what needs other users"; fi

for seed in 1 2 3; do
    say "fsx, $operations operations, seed $seed"
    "$TOOLS/fsx" -q -N "$operations" -S "$seed" -P "$WORK" "$MNT/fsx-$seed" >"$WORK/fsx-$seed.txt" 2>&1 ||
        fail "fsx with seed $seed: $(tail -n 20 "$WORK/fsx-$seed.txt")"
    figure "fsx: seed $seed, $operations operations, no difference"
done
cluster_down
