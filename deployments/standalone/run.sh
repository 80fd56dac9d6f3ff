#!/usr/bin/env bash
# Starts the platform in .slipway, deploys the sample app through the public API and
# says what there is to try. Ctrl-C stops all of it; the next run resumes the data.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly bin=$PWD/bin
readonly data=${SLIPWAY_DATA_DIR:-$PWD/.slipway}
readonly log=$data/slipwayd.log
export SLIPWAY_DATA_DIR=$data
registry=${SLIPWAY_REGISTRY:-127.0.0.1:5055}
edge=${SLIPWAY_EDGE_HTTP:-:8000}
domain=${SLIPWAY_BASE_DOMAIN:-apps.localhost}

mkdir -p -m 0711 "$data"
: >>"$log"

# In a process group of its own, so that Ctrl-C reaches this script, which passes it on.
set -m
"$bin/slipwayd" 2>>"$log" &
daemon=$!
set +m

stopping=
stop() {
  local signal=$1
  [[ -n $stopping ]] || echo "Stopping the platform and its apps; again to end at once ..."
  stopping=yes
  kill -s "$signal" "$daemon" 2>/dev/null || true
}
trap 'stop INT' INT
trap 'stop TERM' TERM HUP

# The daemon is waited for again after each signal that interrupts the wait.
await() {
  local code=0
  while kill -0 "$daemon" 2>/dev/null; do
    code=0
    wait "$daemon" || code=$?
  done
  return "$code"
}

give_up() {
  [[ -n $stopping ]] || printf '%s\n\nThe last lines of %s:\n' "$1" "$log" >&2
  [[ -n $stopping ]] || tail -n 20 "$log" >&2
  kill -s INT "$daemon" 2>/dev/null || true
  await || true
  exit 1
}

# api_url from the credentials, which are there once the API listens.
value() { sed -n "s/.*\"$1\": \"\\([^\"]*\\)\".*/\\1/p" "$data/credentials.json" 2>/dev/null; }

# ready asks the health endpoint with bash alone: curl may not be installed.
ready() {
  local url host line
  url=$(value api_url)
  [[ -n $url ]] || return 1
  host=${url#http://}
  exec 3<>"/dev/tcp/${host%:*}/${host##*:}" || return 1
  printf 'GET /api/v1/health HTTP/1.0\r\nHost: %s\r\n\r\n' "$host" >&3
  read -r line <&3 || true
  exec 3>&- 3<&-
  [[ $line == *" 200 "* ]]
}

echo "Starting the platform (log: $log) ..."
for ((i = 0; ; i++)); do
  kill -0 "$daemon" 2>/dev/null || give_up 'slipwayd ended.'
  [[ -z $stopping ]] || { await || true; exit 0; }
  if ready 2>/dev/null; then break; fi
  ((i < 600)) || give_up 'The platform did not get ready within a minute.'
  sleep 0.1
done

export SLIPWAY_CREDENTIALS=$data/credentials.json
if "$bin/slipway" status sample >/dev/null 2>&1; then
  echo 'The sample app is there from before.'
else
  image=$("$bin/slipway-sample" push --registry "$registry" --name sample:latest) || give_up 'The sample app could not be pushed.'
  echo "Deploying $image ..."
  "$bin/slipway" deploy "$image" --subdomain sample || give_up 'The sample app could not be deployed.'
fi

cat <<TEXT

Slipway is running.

  Sample app    http://sample.$domain:${edge##*:}
  API           $(value api_url)   (OpenAPI: $(value api_url)/openapi.json)
  Credentials   $data/credentials.json

Try next, in another terminal:

  curl http://sample.$domain:${edge##*:}
  bin/slipway status
  bin/slipway logs sample
  bin/slipway events sample --follow
  bin/slipway deploy docker.io/library/nginx:alpine --subdomain hello --port 80

Ctrl-C stops everything; make run starts it again with the same data; make clean removes it.
TEXT

await
