# The tools themselves, and the facts of the machine for them.
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.programs.nixos-go;
in
{
  imports = [ ../settings.nix ];

  options.programs.nixos-go = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = "Whether the tools of nixos-go are installed.";
    };

    package = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ../../nix/package.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage nixos-go/nix/package.nix { }";
      description = "The package with the tools.";
    };

    initrdPackage = lib.mkOption {
      type = lib.types.package;
      default = pkgs.callPackage ../../nix/initrd-reset.nix { };
      defaultText = lib.literalExpression "pkgs.callPackage nixos-go/nix/initrd-reset.nix { }";
      description = "The package with the static program that runs at boot.";
    };
  };

  config = lib.mkIf cfg.enable {
    environment.systemPackages = [ cfg.package ];
    environment.etc."nixos-go/settings.json".text = builtins.toJSON config.settings;

    # A flake is a git repository, and git refuses one that belongs to another
    # user: /etc/nixos belongs to the admin, nixos-rebuild runs as root.
    programs.git = {
      enable = true;
      config.safe.directory = [ "/etc/nixos" ];
    };
  };
}
