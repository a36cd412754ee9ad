# The live system of the NixOS lane: NixOS' own installer, as a kernel and a
# ramdisk that QEMU starts directly, with its console on the serial line.
#
#   nix build --impure --file vmtest/guest/nixos/installer.nix --argstr flake git+file:///…
#
# nixpkgs is the flake's own locked input, so that what is installed was on the
# live system's minds, too.
{
  flake,
  system ? builtins.currentSystem,
}:
let
  inherit ((builtins.getFlake flake).inputs) nixpkgs;
  pkgs = nixpkgs.legacyPackages.${system};
  machine = nixpkgs.lib.nixosSystem {
    inherit system;
    modules = [
      "${nixpkgs}/nixos/modules/installer/netboot/netboot-minimal.nix"
      {
        boot.kernelParams = [ "console=ttyS0,115200" ];
        services.openssh.enable = true;
        nix.settings.experimental-features = [
          "nix-command"
          "flakes"
        ];
        system.stateVersion = nixpkgs.lib.trivial.release;
      }
    ];
  };
  inherit (machine.config.system) build;
in
pkgs.runCommand "nixos-go-installer" { } ''
  mkdir $out
  ln -s ${build.kernel}/${machine.config.system.boot.loader.kernelFile} $out/kernel
  ln -s ${build.netbootRamdisk}/initrd $out/initrd
  echo "init=${build.toplevel}/init ${toString machine.config.boot.kernelParams}" >$out/cmdline
''
