{
  description = "nixos-go: NixOS machines that are reset to their declared state at every boot";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

    home-manager = {
      url = "github:nix-community/home-manager";
      inputs.nixpkgs.follows = "nixpkgs";
    };

    plasma-manager = {
      url = "github:nix-community/plasma-manager";
      inputs.nixpkgs.follows = "nixpkgs";
      inputs.home-manager.follows = "home-manager";
    };

    disko = {
      url = "github:nix-community/disko";
      inputs.nixpkgs.follows = "nixpkgs";
    };

    lanzaboote = {
      url = "github:nix-community/lanzaboote";
      inputs.nixpkgs.follows = "nixpkgs";
    };
  };

  outputs =
    { self, nixpkgs, ... }@inputs:
    let
      inherit (nixpkgs) lib;

      systems = [
        "x86_64-linux"
        "aarch64-linux"
      ];
      forEachSystem = f: lib.genAttrs systems (system: f nixpkgs.legacyPackages.${system});

      # modules/system/disk.nix is nixosModules.disk, and so on.
      modulesIn =
        folder:
        lib.listToAttrs (
          map (file: lib.nameValuePair (lib.removeSuffix ".nix" file) (folder + "/${file}")) (
            lib.filter (lib.hasSuffix ".nix") (lib.attrNames (builtins.readDir folder))
          )
        );

      # The name of plasma-manager's modules has changed once.
      homeModules = inputs.plasma-manager.homeModules or inputs.plasma-manager.homeManagerModules;

      ownModules = {
        settings = ./modules/settings.nix;
      }
      // modulesIn ./modules/system
      // modulesIn ./modules/apps;

      nixosModules = ownModules // {
        # All of ours, and what they build on. Each of the others works alone.
        default = {
          imports = lib.attrValues ownModules ++ [
            inputs.disko.nixosModules.disko
            inputs.lanzaboote.nixosModules.lanzaboote
            inputs.home-manager.nixosModules.home-manager
            { home-manager.sharedModules = [ homeModules.plasma-manager ]; }
          ];
        };
      };

      ownPackages =
        pkgs:
        let
          nixos-go = pkgs.callPackage ./nix/package.nix { };
        in
        {
          inherit nixos-go;
          default = nixos-go;
          initrd-reset = pkgs.callPackage ./nix/initrd-reset.nix { };
        }
        # One binary, many names: `nix run .#nixos-diff`.
        // lib.genAttrs (import ./nix/tools.nix) (
          name: nixos-go.overrideAttrs (old: { meta = old.meta // { mainProgram = name; }; })
        );

      machines = import ./nix/machines.nix { inherit inputs nixosModules; };
    in
    {
      inherit nixosModules;
      nixosConfigurations = machines { inherit self; };

      # For the flake of another owner, see templates/default.
      lib = {
        inherit machines;
        functions = import ./nix/lib;
      };

      overlays.default = final: _: {
        nixos-go = final.callPackage ./nix/package.nix { };
        initrd-reset = final.callPackage ./nix/initrd-reset.nix { };
      };

      packages = forEachSystem (
        pkgs:
        ownPackages pkgs
        // {
          # The disko that the installer runs is the one that is locked here.
          inherit (inputs.disko.packages.${pkgs.stdenv.hostPlatform.system}) disko;
        }
      );

      checks = forEachSystem (
        pkgs:
        {
          inherit (self.packages.${pkgs.stdenv.hostPlatform.system}) nixos-go initrd-reset;
        }
        // {
          # The evaluation fails when a test does.
          functions = pkgs.writeText "functions-tested" (
            toString (lib.length (import ./nix/tests/functions.nix))
          );
        }
      );

      devShells = forEachSystem (pkgs: {
        default = pkgs.mkShell {
          packages = [
            pkgs.acl
            pkgs.attr
            pkgs.btrfs-progs
            pkgs.cryptsetup
            pkgs.e2fsprogs
            pkgs.fish
            pkgs.fuse3
            pkgs.gcc
            pkgs.git
            pkgs.gnutar
            pkgs.go
            pkgs.golangci-lint
            pkgs.groff
            pkgs.jq
            pkgs.just
            pkgs.kmod
            pkgs.mtools
            pkgs.perl
            pkgs.qemu
            pkgs.sbsigntool
            pkgs.shellcheck
            pkgs.strace
            pkgs.swtpm
            pkgs.systemd
            pkgs.util-linux
            pkgs.xz
            pkgs.zbar
            pkgs.zstd
            pkgs.zsh
            self.formatter.${pkgs.stdenv.hostPlatform.system}
          ]
          # Not in every nixpkgs; scripts/vm alone asks for it.
          ++ nixpkgs.lib.optional (pkgs ? mmdebstrap) pkgs.mmdebstrap;
        };
      });

      formatter = forEachSystem (pkgs: pkgs.nixfmt-tree or pkgs.nixfmt-rfc-style);

      templates.default = {
        path = ./templates/default;
        description = "A machine of one's own";
        welcomeText = ''
          A machine of your own:
          1. flake.nix: say where nixos-go comes from.
          2. hosts/x86_64/my-machine.nix: rename it, name the disk, read through it.
          3. configuration.nix: anything else that NixOS has an option for.
          4. git init && git add . && nix flake lock && nix flake check --no-build
          Then install: nix run .#nixos-install-go
        '';
      };
    };
}
