#!/usr/bin/env bash
# Installs what the platform needs beside Go (which it only looks for): Podman, an OCI
# runtime, PostgreSQL's programs, the tools of container networks, and curl for the
# README's commands; then the programs that are named as arguments, each from a package
# of the same name. Says nothing when all is there. When not run as root, it prints what
# to run and stops.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

# Each line: a program that must be found, and the Debian package that has it.
readonly needed='
podman       podman
crun|runc    runc
conmon       conmon
netavark|/usr/lib/podman/netavark netavark
iptables     iptables
nft          nftables
initdb       postgresql
curl         curl
'

if ! command -v go >/dev/null; then
  echo 'Go is missing. Install it as https://go.dev/doc/install says, then run this again.' >&2
  exit 1
fi
if ! said=$(go env GOVERSION 2>&1); then
  printf 'This Go cannot build Slipway; install a newer one as https://go.dev/doc/install says.\n%s\n' "$said" >&2
  exit 1
fi

# has tells whether one of the programs, separated by |, is installed.
has() {
  local IFS='|' program
  for program in $1; do
    case "$program" in
      initdb) compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null && return 0 ;;
      /*) [[ -x $program ]] && return 0 ;;
    esac
    PATH="$PATH:/usr/sbin:/sbin" command -v "$program" >/dev/null && return 0
  done
  return 1
}

missing=()
while read -r programs package; do
  [[ -z $programs ]] && continue
  has "$programs" || missing+=("$package")
done <<<"$needed"
for program in "$@"; do
  has "$program" || missing+=("$program")
done
if ((EUID != 0)); then
  # Podman without root.
  has newuidmap || missing+=(uidmap)
  has slirp4netns || missing+=(slirp4netns)
fi
[[ -e /etc/ssl/certs/ca-certificates.crt ]] || missing+=(ca-certificates)

if ((${#missing[@]} == 0)); then
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "Missing: ${missing[*]}. This is no Debian: install them with your own package manager, then run this again." >&2
  exit 1
fi
install="apt-get update && apt-get install --yes --no-install-recommends ${missing[*]}"
if ((EUID != 0)); then
  printf 'Missing: %s. Run this, then run make again:\n\n  sudo sh -c "%s"\n\n' "${missing[*]}" "$install" >&2
  exit 1
fi

# quietly shows what a command says only when it fails.
quietly() {
  local said
  said=$("$@" 2>&1) || {
    printf '%s\n\nThis failed: %s\n' "$said" "$*" >&2
    exit 1
  }
}

echo "Installing ${missing[*]} (a minute or two) ..."
export DEBIAN_FRONTEND=noninteractive
# The platform runs a database of its own: Debian need not make one.
if [[ " ${missing[*]} " == *" postgresql "* ]]; then
  mkdir -p /etc/postgresql-common
  if [[ ! -e /etc/postgresql-common/createcluster.conf ]]; then
    echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
  fi
fi
# On a machine just started, its own upgrades may hold apt's lock for a while.
readonly patience=DPkg::Lock::Timeout=300
quietly apt-get update -o "$patience"
quietly apt-get install -o "$patience" --yes --no-install-recommends "${missing[@]}" </dev/null
