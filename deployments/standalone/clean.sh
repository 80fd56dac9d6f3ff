#!/usr/bin/env bash
# Removes data directories with the containers, networks and mounts that belong to
# them. The platform must have stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export SLIPWAY_LOG_LEVEL=error

for data in "$@"; do
  [[ -e $data ]] || continue
  [[ -x bin/slipwayd && -x bin/slipway-node-agent ]] || make build
  # Agents of their own, as make dev and Tilt run them; slipwayd's is in nodes/.
  while IFS= read -r conf; do
    agent=$(dirname "$conf")
    [[ $(basename "$(dirname "$agent")") == nodes ]] && continue
    node=$(basename "$agent")
    bin/slipway-node-agent purge --data-dir "$agent" --node-id "${node#node-}"
  done < <(find "$data" -name storage -prune -o -name containers.conf -print)
  bin/slipwayd purge --data-dir "$data"
done
