# How the dependencies of all Go modules are downloaded: what vendor-hash.nix
# is the hash of. nix/vendor-hash does the same without Nixpkgs.
#
# nixpkgs runs `go mod download` in one module; here each module of go.work is
# asked on its own, so that each of them builds and tests alone.
#
# up: the way from the module that is built to the root of the source.
{ up }:
_: {
  buildPhase = ''
    runHook preBuild
    export GOWORK=off
    mkdir -p "$GOPATH/pkg/mod/cache/download"
    for module in $(find ${up} -name go.mod -exec dirname {} + | sort); do
      (cd "$module" && go mod download)
    done
    runHook postBuild
  '';
}
