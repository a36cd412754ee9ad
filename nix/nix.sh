#!/usr/bin/env bash
# nix/nix.sh ARGUMENTS: runs `nix ARGUMENTS` (or another of Nix' programs, with
# NIX_PROGRAM=nix-instantiate …). Takes the Nix on PATH; where there is none,
# on Debian, unpacks one into .cache/nix from Debian's own packages, of a
# release that has it, without installing anything.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
program=${NIX_PROGRAM:-nix}
cache=$root/.cache/nix
release=trixie # Nix 2.26

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# The mirror that this machine's own apt uses.
mirror() {
  local file uri
  for file in /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] || continue
    uri=$(sed -n 's/^URIs:[[:space:]]*\([^[:space:]]*\/debian\)\/\{0,1\}\([[:space:]].*\)\{0,1\}$/\1/p
                  s/^deb[[:space:]]\(\[[^]]*\][[:space:]]*\)\{0,1\}\([^[:space:]]*\/debian\)\/\{0,1\}[[:space:]].*/\2/p' "$file" | head -n 1)
    if [ -n "$uri" ]; then
      printf '%s\n' "$uri"
      return
    fi
  done
  return 1
}

fetch() {
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg uri work libraries loader
  if ! command -v apt-get >/dev/null || [ ! -f "$keyring" ]; then
    die "nix is missing, and this is not Debian: install it (https://nixos.org/download)"
  fi
  uri=$(mirror) || die "nix is missing, and apt has no Debian mirror to take it from"
  work=$cache/$release.part
  rm -rf "$work"
  mkdir -p "$work"/{lists/partial,debs/partial,root}
  : >"$work/status"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$uri" "$release" >"$work/sources.list"
  cat >"$work/apt.conf" <<CONF
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::Lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
Acquire::Languages "none";
CONF
  (
    export APT_CONFIG=$work/apt.conf
    apt-get -qq update
    cd "$work/debs"
    # What nix-bin needs, less what only serves to install packages.
    apt-get -qq install --print-uris --yes nix-bin patchelf |
      sed -n "s/^'\([^']*\)' .*/\1/p" | sed 's#.*/##; s#_.*##; s#%2b#+#gi' |
      grep -vE '^(perl|libperl|libdbi-perl|libdbd|libwww|passwd|login|debconf|base-passwd|libsemanage|libsepol|libpam|openssl-provider|readline-common|xz-utils|bzip2$|curl$)' |
      xargs apt-get -qq download
  ) >&2
  for deb in "$work"/debs/*.deb; do
    dpkg-deb --extract "$deb" "$work/root"
  done
  # Its own loader and libraries, named by absolute path.
  mv "$work" "$cache/$release"
  loader=$(find "$cache/$release/root/usr/lib/" -name 'ld-linux-*.so.*' | head -n 1)
  libraries=$(dirname "$loader")
  "$loader" --library-path "$libraries" "$cache/$release/root/usr/bin/patchelf" \
    --set-interpreter "$loader" --force-rpath --set-rpath "$libraries" \
    "$cache/$release/root/usr/bin/nix"
  cat >"$cache/nix.conf" <<CONF
experimental-features = nix-command flakes
store = $cache/store
sandbox = false
build-users-group =
substituters =
flake-registry =
warn-dirty = false
CONF
  rm -rf "$cache/$release"/{debs,lists}
  touch "$cache/$release/complete"
}

if command -v "$program" >/dev/null; then
  export NIX_CONFIG="experimental-features = nix-command flakes
${NIX_CONFIG:-}"
  exec "$program" "$@"
fi

if [ ! -e "$cache/$release/complete" ]; then
  mkdir -p "$cache"
  exec 9>"$cache/lock"
  flock 9
  if [ ! -e "$cache/$release/complete" ]; then
    rm -rf "${cache:?}/$release"
    printf '== fetching nix into %s\n' "$cache" >&2
    fetch
  fi
  exec 9>&-
fi
export NIX_CONF_DIR=$cache XDG_CACHE_HOME=$cache/xdg XDG_STATE_HOME=$cache/xdg XDG_DATA_HOME=$cache/xdg
exec "$cache/$release/root/usr/bin/$program" "$@"
