# The static program that resets the volumes in the initrd.
{
  lib,
  buildGoModule,
}:
buildGoModule {
  pname = "initrd-reset";
  version = import ./version.nix;

  src = import ./source.nix { inherit lib; };
  modRoot = "initrd-reset";
  subPackages = [ "." ];

  proxyVendor = true;
  vendorHash = import ./vendor-hash.nix;
  overrideModAttrs = import ./go-modules.nix { up = ".."; };

  env = {
    CGO_ENABLED = "0";
    GOWORK = "off";
  };
  ldflags = [
    "-s"
    "-w"
  ];

  # Tests need root and real file systems; the package nixos-go runs the rest.
  doCheck = false;

  meta = {
    description = "Resets BTRFS volumes to their declared state at boot";
    mainProgram = "initrd-reset";
    platforms = lib.platforms.linux;
  };
}
