// Package nix builds the calls of nix, git, nixos-rebuild and nixos-install,
// and reads what they print.
//
// Commands are values; the functions that make them are pure. A flake is always
// named as git+file://, never by a plain path, which would copy everything in
// the folder, secrets included, into the world-readable store. Every call but
// [Flake.Lock] and [Flake.Update] has --no-update-lock-file, so that all parts
// of an installation or an update see the same inputs.
package nix
