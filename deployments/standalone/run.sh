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

mkdir -p "$data"
chmod 0711 "$data"
: >>"$log"
logged=$(stat -c %s "$log") # before this run
readonly logged

# In a process group of its own, so that Ctrl-C reaches this script, which passes it on.
set -m
"$bin/slipwayd" 2>>"$log" &
daemon=$!
set +m

stopping=
stop() {
  local signal=$1 what=$2 again=$stopping
  # A terminal that is closed after Ctrl-C hangs up too: no wish to end at once.
  [[ -n $again && $signal == HUP ]] && return
  stopping=yes
  kill -s "${signal/HUP/TERM}" "$daemon" 2>/dev/null || true
  # The terminal may be gone.
  [[ -n $again ]] || echo "Stopping $what; again to end at once ..." 2>/dev/null || true
}
trap 'stop INT "the platform and its apps"' INT
trap 'stop TERM "the platform, its apps run on"' TERM
trap 'stop HUP "the platform, its apps run on"' HUP

# The daemon is waited for again after each signal that interrupts the wait.
await() {
  local code=0
  while kill -0 "$daemon" 2>/dev/null; do
    code=0
    wait "$daemon" || code=$?
  done
  return "$code"
}

# give_up REASON: ends with the daemon's own last words, or the end of its log.
give_up() {
  kill -s INT "$daemon" 2>/dev/null || true
  await || true
  [[ -z $stopping ]] || exit 1
  local said words
  said=$(tail -c "+$((logged + 1))" "$log")
  words=$(sed -n '/^slipwayd: /,$p' <<<"$said")
  [[ -n $words ]] || words=$(tail -n 20 <<<"$said")
  printf '%s\n\n%s\n\nMore is in %s\n' "$1" "$words" "$log" >&2
  exit 1
}

# value NAME: a field of the credentials, which are there once the API listens.
value() { sed -n "s/.*\"$1\": \"\([^\"]*\)\".*/\1/p" "$data/credentials.json" 2>/dev/null; }

# answers HOST:PORT PATH HOSTNAME: whether a GET is answered with 200. With bash
# alone: curl may not be installed.
answers() {
  local line=
  exec 3<>"/dev/tcp/${1%:*}/${1##*:}" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$3" >&3
  read -r -t 5 line <&3 || true
  exec 3>&- 3<&-
  [[ $line == *" 200 "* ]]
}

# ready is about this daemon, not another that has the data directory.
ready() {
  local holder url address
  read -r holder <"$data/lock" && [[ $holder == "$daemon" ]] || return 1
  url=$(value api_url)
  [[ -n $url ]] || return 1
  address=${url#http://}
  answers "$address" /api/v1/health "$address"
}

sample_answers() { answers "127.0.0.1:${edge##*:}" / "$1"; }

# await_that SECONDS COMMAND...: tries it until it succeeds, the daemon ends or Ctrl-C.
await_that() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@" 2>/dev/null; do
    kill -0 "$daemon" 2>/dev/null && [[ -z $stopping ]] && ((SECONDS < deadline)) || return 1
    sleep 0.1
  done
}

echo "Starting the platform (log: $log) ..."
await_that 60 ready || give_up 'The platform did not start.'

export SLIPWAY_CREDENTIALS=$data/credentials.json
address=$(value app_url)
address=${address/\{subdomain\}/sample}
hostname=${address#http://}
deployments=$("$bin/slipway" status) || give_up 'The API does not say what is deployed.'
state=$(sed -n '/ destroyed /d; s/^sample  *\([a-z]*\) .*/\1/p' <<<"$deployments")
case $state in
  '')
    image=$("$bin/slipway-sample" push --registry "$registry" --name sample:latest) || give_up 'The sample app could not be pushed.'
    echo "Deploying $image ..."
    "$bin/slipway" deploy "$image" --subdomain sample || give_up 'The sample app could not be deployed.'
    ;;
  stopped) echo 'The sample app is stopped; bin/slipway status sample says why.' ;;
  *)
    echo 'The sample app is there from before.'
    await_that 60 sample_answers "$hostname" || give_up "The sample app does not answer at $address."
    ;;
esac

# Elsewhere than in .slipway, neither the command line nor make clean looks by itself.
named='' clean='make clean'
if [[ $data != "$PWD/.slipway" ]]; then
  named="  export SLIPWAY_CREDENTIALS=$SLIPWAY_CREDENTIALS"$'\n'
  clean="bin/slipwayd purge --data-dir $data"
fi

cat <<TEXT

Slipway is running.

  Sample app    $address
  API           $(value api_url)   (OpenAPI: $(value api_url)/openapi.json)
  Credentials   $data/credentials.json

Try next, in another terminal:

$named  curl $address
  bin/slipway status
  bin/slipway logs sample
  bin/slipway events sample --follow
  bin/slipway deploy docker.io/library/nginx:alpine --subdomain hello --port 80

Ctrl-C stops everything; make run starts it again with the same data; $clean removes it.
TEXT

await
