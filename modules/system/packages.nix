# Nix itself, and what everybody on the machine finds installed.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (config) settings;

  named =
    name:
    lib.attrByPath (lib.splitString "." name) (throw ''
      settings.packages.extra: nixpkgs has no package ${name}
    '') pkgs;
in
{
  imports = [ ../settings.nix ];

  config = lib.mkMerge [
    {
      system.stateVersion = lib.mkIf (settings.stateVersion != null) settings.stateVersion;

      nix = {
        settings = {
          experimental-features = [
            "nix-command"
            "flakes"
          ];
          auto-optimise-store = lib.mkDefault true;
        };

        gc = {
          automatic = lib.mkDefault true;
          dates = lib.mkDefault "weekly";
          options = lib.mkDefault "--delete-older-than 30d";
        };
      };

      environment.systemPackages = [
        pkgs.btrfs-progs
        pkgs.cryptsetup
        pkgs.curl
        pkgs.file
        pkgs.htop
        pkgs.jq
        pkgs.lsof
        pkgs.pciutils
        pkgs.ripgrep
        pkgs.sbctl
        pkgs.tree
        pkgs.usbutils
        pkgs.vim
      ]
      ++ map named settings.packages.extra;

      zramSwap.enable = lib.mkDefault (!settings.disk.swap.enable);

      # One configuration file for all kinds of sleep, in every release of NixOS.
      environment.etc."systemd/sleep.conf.d/50-nixos-go.conf".text =
        let
          yes = allowed: if allowed then "yes" else "no";
          both = settings.sleep.suspend && settings.sleep.hibernate;
        in
        ''
          [Sleep]
          AllowSuspend=${yes settings.sleep.suspend}
          AllowHibernation=${yes settings.sleep.hibernate}
          AllowSuspendThenHibernate=${yes both}
          AllowHybridSleep=${yes both}
        '';
    }

    # Where the flake brings its own pkgs, their licences are its affair.
    (lib.mkIf (settings.packages.unfree && !options.nixpkgs.pkgs.isDefined) {
      nixpkgs.config.allowUnfree = true;
    })
  ];
}
