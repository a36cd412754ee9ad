# shellcheck shell=bash
# Shared by the scripts of this folder: where the project is, how a missing
# program is installed, and how messages look. Sourced, never run.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS_BIN="$ROOT/.cache/bin"
export ROOT TOOLS_BIN
PATH="$TOOLS_BIN:$PATH:/usr/local/go/bin:/usr/sbin:/sbin"

# Under sudo the clone is somebody else's, and git would refuse to tell its version.
export GOFLAGS="${GOFLAGS:--buildvcs=false}"

say() { printf '== %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# as_root re-runs the calling script through sudo when it is not root already.
as_root() {
  [ "$(id -u)" = 0 ] && return
  command -v sudo >/dev/null || die "this needs root (loop devices and mounts): run it as root, or install sudo"
  exec sudo --preserve-env=CI,VM_GUEST,VM_FROM,VM_CLEAN,VM_CLEAN_ALL,NIXOS_GO_VM_CACHE,NO_COLOR,GOCACHE,GOMODCACHE,GOPROXY,GOFLAGS,PATH,HOME "$0" "$@"
}

# need PROGRAM PACKAGE … : installs the Debian packages of the programs that
# are missing; elsewhere says what to install (on NixOS: nix develop).
need() {
  local missing=()
  while [ $# -gt 0 ]; do
    command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} = 0 ] && return
  command -v apt-get >/dev/null || die "missing: ${missing[*]} (on NixOS: nix develop)"
  say "installing ${missing[*]}"
  if [ -z "$(find /var/lib/apt/lists -maxdepth 1 -name '*_Packages*' -mmin -1440 -print -quit 2>/dev/null)" ]; then
    apt-get update -qq
  fi
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# go_tool NAME MODULE@VERSION: a pinned tool of Go, built once into .cache/bin.
go_tool() {
  local stamp="$TOOLS_BIN/.$1-${2##*@}"
  [ -e "$stamp" ] && return
  say "building $1 ${2##*@}"
  GOBIN="$TOOLS_BIN" GOWORK=off GOFLAGS=-mod=mod go install "$2"
  touch "$stamp"
}

need_go() {
  command -v go >/dev/null || die "Go 1.25 or newer is missing: install it from your distribution (on NixOS: nix develop)"
}
