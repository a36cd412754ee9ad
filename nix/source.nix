# The source of the Go modules: nothing that a build does not read, so that an
# edit of a host or of a document rebuilds nothing.
{ lib }:
lib.cleanSourceWith {
  name = "nixos-go-source";
  src = ../.;
  filter =
    path: type:
    let
      relative = lib.removePrefix (toString ../. + "/") (toString path);
      top = lib.head (lib.splitString "/" relative);
    in
    lib.elem top [
      "go.mod"
      "go.sum"
      "go.work"
      "go.work.sum"
      "initrd-reset"
      "pkg"
      "tools"
    ];
}
