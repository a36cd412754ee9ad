# Everything in which a machine can differ, as options under `settings`: hosts
# set them, the other modules read them. The whole is plain data, written to
# /etc/nixos-go/settings.json for the tools; nothing secret belongs in it.
{ config, lib, ... }:
let
  checks = import ../nix/lib/checks.nix;
  checked = checks config.settings;
in
{
  imports = [
    ./settings/apps.nix
    ./settings/boot.nix
    ./settings/desktop.nix
    ./settings/disk.nix
    ./settings/hardware.nix
    ./settings/immutability.nix
    ./settings/networking.nix
    ./settings/persist-apps.nix
    ./settings/persist.nix
    ./settings/user.nix
  ];

  options.settings = {
    stateVersion = lib.mkOption {
      type = lib.types.nullOr lib.types.str;
      default = null;
      example = "26.05";
      description = ''
        `system.stateVersion`: the NixOS release that the machine was installed
        with. Never changed afterwards. Left alone when null.
      '';
    };

    secrets = {
      path = lib.mkOption {
        type = lib.types.strMatching "/.+";
        default = "/var/lib/nixos-go/secrets";
        description = ''
          Folder of the machine's secrets, 0700 root. A string, never a Nix
          path: a path would be copied into the world-readable store. It must
          lie outside the flake, below a path that persists, on a volume that
          is mounted early in the boot.
        '';
      };

      hashedPasswordFile = lib.mkOption {
        type = lib.types.strMatching "/.+";
        default = "${config.settings.secrets.path}/hashed-password";
        defaultText = lib.literalExpression ''"''${settings.secrets.path}/hashed-password"'';
        description = ''
          File with the hash of the admin's password, written by the installer
          and by nixos-change-password. The account is locked while it is missing.
        '';
      };
    };

    locale = {
      timeZone = lib.mkOption {
        type = lib.types.nullOr lib.types.str;
        default = "UTC";
        example = "Europe/Berlin";
        description = "Time zone; null leaves it to the desktop.";
      };

      defaultLocale = lib.mkOption {
        type = lib.types.str;
        default = "en_US.UTF-8";
        description = "Language and formats of the system.";
      };

      extraLocaleSettings = lib.mkOption {
        type = lib.types.attrsOf lib.types.str;
        default = { };
        example = {
          LC_TIME = "de_DE.UTF-8";
        };
        description = "Single categories that differ from the default locale.";
      };

      keyMap = lib.mkOption {
        type = lib.types.str;
        default = "us";
        description = "Keyboard of the console, and of the passphrase prompt at boot.";
      };

      xkbLayout = lib.mkOption {
        type = lib.types.str;
        default = "us";
        description = "Keyboard layout of the desktop.";
      };

      xkbVariant = lib.mkOption {
        type = lib.types.str;
        default = "";
        description = "Variant of the desktop's keyboard layout.";
      };
    };

    sleep = {
      suspend = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether the machine may suspend to memory.";
      };

      hibernate = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = ''
          Whether the machine may hibernate; needs the swap file. A reset never
          runs while a hibernated image waits.
        '';
      };

      autoSuspendMinutes = lib.mkOption {
        type = lib.types.nullOr lib.types.ints.positive;
        default = null;
        description = "Idle minutes after which the desktop suspends; null for never.";
      };
    };

    packages = {
      unfree = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether packages without a free licence may be installed.";
      };

      extra = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        example = [
          "firefox"
          "kdePackages.kcalc"
        ];
        description = "More packages for everybody, by their names in nixpkgs.";
      };
    };
  };

  config = {
    inherit (checked) assertions warnings;
  };
}
