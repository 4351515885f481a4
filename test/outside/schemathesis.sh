#!/usr/bin/env bash
# Schemathesis against the executable: every answer must be what the API document says, for requests that fit the
# document and for requests that break it. Without keys first, then with a
# key that may do everything, then with one that may do little.
#
#   test/outside/schemathesis.sh [executable]     default: dist/topics
#
# Ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")/../.."

version=4.32.5
examples=${SCHEMATHESIS_EXAMPLES:-80}
seed=${SCHEMATHESIS_SEED:-1}
executable=$(realpath "${1:-dist/topics}")
dir=$(mktemp -d)
server=
passed=0
failed=0

stop() {
  [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server"
  server=
}
trap 'stop; rm -rf "$dir"' EXIT

# The program of that version: the one on the PATH, or one in a cached environment of its own.
find_schemathesis() {
  schemathesis=schemathesis
  [ "$(schemathesis --version 2>/dev/null)" = "schemathesis, version $version" ] && return
  local venv=${XDG_CACHE_HOME:-$HOME/.cache}/topics-schemathesis-$version
  schemathesis=$venv/bin/schemathesis
  [ -x "$schemathesis" ] && return
  python3 -m venv "$venv" && "$venv/bin/pip" install --quiet "schemathesis==$version"
}

start() {
  rm -rf "$dir/data" "$dir/address"
  TOPICS_PORT=0 TOPICS_PORT_FILE="$dir/address" TOPICS_DATA_DIR="$dir/data" "$executable" >"$dir/log" 2>&1 &
  server=$!
  for _ in $(seq 200); do
    [ -s "$dir/address" ] && return
    kill -0 "$server" 2>/dev/null || break
    sleep 0.05
  done
  echo "the server did not start:"
  cat "$dir/log"
  return 1
}

# check <arguments for Schemathesis>. Streams have no end, and are left out but those of sessions, which have to be
# opened before there is one. The URL is told once more, because Schemathesis does not resolve that of the document,
# which is relative to it.
check() {
  echo "== $*"
  if ! start; then
    failed=$((failed + 1))
    return
  fi
  (cd "$dir" && "$schemathesis" --config-file "$dir/config.toml" --no-color run \
    "http://$(cat address)/swagger/json" --url "http://$(cat address)" \
    --max-examples "$examples" --seed "$seed" --checks all \
    --exclude-path '/v0/topics/{topic}/work' --exclude-path '/v0/topics/{topic}/stream' \
    --exclude-path /v0/ws "$@") | tee "$dir/output"
  local status=${PIPESTATUS[0]}
  local made found
  made=$(grep -oE '[0-9]+ generated' "$dir/output" | tail -1 | grep -oE '[0-9]+')
  found=$(grep -oE '[0-9]+ unique failures?' "$dir/output" | tail -1 | grep -oE '[0-9]+')
  if [ "$status" -ne 0 ] && [ "${found:-0}" -eq 0 ]; then found=1; fi
  if ! kill -0 "$server" 2>/dev/null; then
    echo "the server has ended"
    found=$((${found:-0} + 1))
  fi
  [ "${found:-0}" -gt 0 ] && echo "-- what the server logged" && tail -20 "$dir/log"
  passed=$((passed + ${made:-0} - ${found:-0}))
  failed=$((failed + ${found:-0}))
  stop
}

find_schemathesis || exit 1
echo "hooks = \"$PWD/test/outside/schemathesis.py\"" >"$dir/config.toml"

# Who needs no key cannot show a wrong one.
check --exclude-checks ignored_auth

# Peers on the same machine need none, unless there is one.
export TOPICS_API_KEYS=everything,restricted:read+write:orders FEED_PEER_TOKEN=everything
check --header "Authorization: Bearer everything"
check --header "Authorization: Bearer restricted"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
