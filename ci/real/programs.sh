#!/bin/bash
# Programs that people use: git, borgbackup with encryption, sqlite3 while a
# chunkserver is killed.
. "$(dirname "$0")/lib.sh"
need git borg sqlite3 jq
source=${ANTLER_GIT_SOURCE:-$ROOT}
transactions=$(full_or_short 10000 1000)
cluster_up

say "git clone of $source"
git clone -q --no-local "file://$(cd "$source" && git rev-parse --absolute-git-dir)" "$MNT/clone"
git -C "$MNT/clone" fsck --full --strict --no-progress >"$WORK/fsck.txt" 2>&1 || fail "git fsck: $(cat "$WORK/fsck.txt")"
[ -z "$(git -C "$MNT/clone" status --porcelain)" ] || fail "git status sees changes in a fresh clone"
figure "git: $(git -C "$MNT/clone" rev-list --count --all) commits, $(git -C "$MNT/clone" ls-files | wc -l) files, fsck clean"

say "borg"
export BORG_PASSPHRASE=secret BORG_BASE_DIR=$WORK/borg BORG_RELOCATED_REPO_ACCESS_IS_OK=yes
data=$(full_or_short /usr/share/perl /usr/share/doc/git)
[ -d "$data" ] || data=/usr/share/doc
borg init -e repokey-blake2 "$MNT/backup" 2>"$WORK/borg.txt" || fail "borg init: $(cat "$WORK/borg.txt")"
borg create "$MNT/backup::one" "$data"
borg create "$MNT/backup::two" "$data" "$ROOT/ci"
borg check --verify-data "$MNT/backup" || fail "borg check --verify-data"
mkdir "$WORK/extracted"
(cd "$WORK/extracted" && borg extract "$MNT/backup::two")
diff -r --no-dereference "$data" "$WORK/extracted/$data" || fail "what borg extracted differs"
figure "borg: create, check --verify-data, extract of $(find "$data" -type f | wc -l) files, no difference"

say "sqlite3, $transactions transactions, a chunkserver killed half way"
database=$MNT/test.db
sqlite3 "$database" 'PRAGMA journal_mode = DELETE; CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT);' >/dev/null
transaction() { awk -v from="$1" -v to="$2" 'BEGIN { print ".bail on\n.timeout 60000"; for (i = from; i <= to; i++) printf "BEGIN; INSERT INTO t VALUES (%d, hex(randomblob(200))); COMMIT;\n", i }'; }
start=$(date +%s)
transaction 1 "$transactions" | sqlite3 "$database" 2>"$WORK/sqlite.txt" &
sqlite=$!
until [ "$(sqlite3 -cmd '.timeout 10000' "$database" 'SELECT count(*) FROM t' 2>/dev/null || echo 0)" -ge $((transactions / 3)) ]; do
    kill -0 "$sqlite" 2>/dev/null || break
    sleep 0.3
done
kill -0 "$sqlite" 2>/dev/null || [ -n "$PLAIN" ] || fail "sqlite3 was over before the kill: $(cat "$WORK/sqlite.txt")"
kill_daemon chunkserver 1
wait "$sqlite" || fail "sqlite3: $(cat "$WORK/sqlite.txt")"
[ "$(sqlite3 "$database" 'PRAGMA integrity_check')" = ok ] || fail "integrity_check"
[ "$(sqlite3 "$database" 'SELECT count(*) FROM t')" = "$transactions" ] || fail "transactions are missing"
figure "sqlite3: $transactions transactions in $(seconds_since "$start") s, a chunkserver killed on the way, integrity_check ok"
cluster_up
wait_healthy 300
cluster_down
