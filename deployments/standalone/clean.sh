#!/usr/bin/env bash
# Removes a platform's data directory with the containers, networks and mounts that
# belong to it. The platform must have stopped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly data=${1:?usage: clean.sh <data directory>}
[[ -e $data ]] || exit 0
if [[ ! -x bin/slipwayd ]]; then
  make build
fi
SLIPWAY_LOG_LEVEL=warn bin/slipwayd purge --data-dir "$data"
