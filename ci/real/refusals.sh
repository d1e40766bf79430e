#!/bin/bash
# What must be refused, with a clear error and nothing touched: mistakes in a
# configuration (all at once, with file and line), a wrong key, garbage on a
# port, a disk that belongs to another server.
. "$(dirname "$0")/lib.sh"
need jq
if [ -n "$PLAIN" ]; then say "nothing here without a cluster"; exit 0; fi
cluster_up
echo safe >"$MNT/file"
sync "$MNT/file"

# refused COMMAND...: it fails within 15 s and says something; its words are in refused.txt.
refused() {
    local code=0
    timeout 15 "$@" >"$WORK/refused.txt" 2>&1 || code=$?
    [ "$code" != 0 ] || fail "not refused: $*"
    [ "$code" != 124 ] || fail "no answer in 15 s: $*"
    [ "$code" -lt 126 ] || fail "crashed with $code: $* $(cat "$WORK/refused.txt")"
    [ -s "$WORK/refused.txt" ] || fail "refused without a word: $*"
    ! grep -q 'panicked' "$WORK/refused.txt" || fail "a panic instead of a message: $(cat "$WORK/refused.txt")"
    say "refused: $(head -n 1 "$WORK/refused.txt" | cut -c 1-150)"
}

say "a configuration with mistakes"
for role in master metalogger chunkserver; do
    config=$DIR/$role-1/config.toml
    [ -f "$config" ] || fail "no $config"
    { printf 'no_such_setting = 1\n'; sed 's/^\(listen *= *\).*/\1"not an address"/' "$config"; } >"$WORK/bad.toml"
    refused "$ANTLER" "$role" --config "$WORK/bad.toml"
    grep -q 'bad.toml' "$WORK/refused.txt" || fail "the message does not name the file: $(cat "$WORK/refused.txt")"
    grep -q 'no_such_setting' "$WORK/refused.txt" || fail "the unknown setting is not named: $(cat "$WORK/refused.txt")"
    grep -q 'listen' "$WORK/refused.txt" || fail "the second mistake is not named: $(cat "$WORK/refused.txt")"
    grep -qE '(:|line )[0-9]+' "$WORK/refused.txt" || fail "no line number: $(cat "$WORK/refused.txt")"
done
printf 'this is [not toml\n' >"$WORK/bad.toml"
refused "$ANTLER" master --config "$WORK/bad.toml"
refused "$ANTLER" master --config "$WORK/missing.toml"
refused "$ANTLER" up --dir "$WORK/elsewhere" --mount "$WORK/elsewhere-mnt" --detach --copies 9 --chunkservers 2

say "a wrong key"
"$ANTLER" keygen >"$WORK/wrong.key" || fail "antler keygen"
mkdir "$WORK/wrong"
refused "$ANTLER" mount "$(masters):/" "$WORK/wrong" -o "key=$WORK/wrong.key"
! mountpoint -q "$WORK/wrong" || fail "mounted with a wrong key"

say "a reader that has seen enough, and a full disk"
{ timeout 30 "$ANTLER" status --dir "$DIR" 2>"$WORK/refused.txt"; echo $? >"$WORK/code"; } | true
[ "$(cat "$WORK/code")" = 0 ] || fail "status of a closed pipe exits with $(cat "$WORK/code")"
[ ! -s "$WORK/refused.txt" ] || fail "status of a closed pipe says $(cat "$WORK/refused.txt")"
refused bash -c '"$1" status --dir "$2" >/dev/full' - "$ANTLER" "$DIR"

say "garbage on every port"
# shellcheck disable=SC2046
ports=$(listening_ports $(our_pids))
[ -n "$ports" ] || fail "found no port"
for port in $ports; do
    for shape in random zeros ones http huge; do
        (
            exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 0
            case $shape in
                random) head -c 100000 /dev/urandom ;;
                zeros) head -c 100000 /dev/zero ;;
                ones) head -c 100000 /dev/zero | tr '\0' '\377' ;;
                http) printf 'GET / HTTP/1.1\r\nHost: x\r\n\r\n' ;;
                huge) printf '\377\377\377\177' && head -c 1000 /dev/urandom ;;
            esac >&3 2>/dev/null
            timeout 2 cat <&3 >/dev/null 2>&1 || true
        ) 2>/dev/null || true
    done
done
say "garbage sent to ports $(echo "$ports" | tr '\n' ' ')"
before=$(our_pids | wc -l)
for log in "$DIR"/*/log; do ! grep -l panicked "$log" || fail "a panic in $log: $(grep -A3 panicked "$log")"; done
for pid_file in "$DIR"/*/pid; do
    our_pids | grep -x "$(cat "$pid_file")" >/dev/null || fail "$(dirname "$pid_file") died of garbage: $(tail -n 5 "$(dirname "$pid_file")/log")"
done
echo after >"$MNT/after"
[ "$(cat "$MNT/file") $(cat "$MNT/after")" = "safe after" ] || fail "the cluster does not serve any more"
[ "$(our_pids | wc -l)" = "$before" ] || fail "a process went away"

say "a disk that belongs to another server"
cluster_down
disk=$(find "$DIR/chunkserver-1" -maxdepth 1 -type d -name 'disk*' | head -n 1)
[ -n "$disk" ] || fail "chunkserver-1 has no disk folder"
other=$DIR/chunkserver-2/$(basename "$disk")
mv "$other" "$WORK/put-aside"
cp -a "$disk" "$other"
(cd "$other" && find . -type f -exec sha256sum {} + | sort) >"$WORK/disk-before.txt"
refused "$ANTLER" chunkserver --config "$DIR/chunkserver-2/config.toml"
(cd "$other" && find . -type f -exec sha256sum {} + | sort) >"$WORK/disk-after.txt"
cmp "$WORK/disk-before.txt" "$WORK/disk-after.txt" || fail "the foreign disk was touched"
rm -rf "$other"
mv "$WORK/put-aside" "$other"
cluster_up
[ "$(cat "$MNT/file")" = safe ] || fail "the data did not stay"
cluster_down
figure "refusals: bad configuration, wrong key, garbage on every port, foreign disk: refused, nothing touched"
