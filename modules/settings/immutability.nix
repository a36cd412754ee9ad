# The reset: which state a boot begins with.
{ config, lib, ... }:
let
  disk = config.settings.disk;
  plan = import ../../nix/lib/plan.nix;
  flagged = lib.filter (v: v.flag == "snapshots") (lib.attrValues disk.subvolumes);
in
{
  options.settings.disk.immutability = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = ''
        Whether the subvolumes with `resetOnBoot` are reset at every boot to
        the state in which they were installed, except for the paths that persist.
      '';
    };

    mode = lib.mkOption {
      type = lib.types.enum [
        "reset"
        "snapshot-only"
        "restore-previous"
        "restore-penultimate"
        "disabled"
      ];
      default = "reset";
      description = ''
        What a boot does. `immutability.mode=` on the kernel command line
        beats it; the boot menu has entries for that.
      '';
    };

    recoveryEntries = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Whether each generation has boot-menu entries that restore the
        previous or penultimate state, or reset nothing. Each is an evaluation
        of the configuration, so they cost time in a rebuild.
      '';
    };

    device = lib.mkOption {
      type = lib.types.str;
      default =
        if disk.encryption.enable then
          "/dev/mapper/${disk.encryption.mapper}"
        else
          disk.byPartlabel.main;
      defaultText = lib.literalExpression ''"/dev/mapper/''${settings.disk.encryption.mapper}"'';
      description = "Block device of the BTRFS file system, opened.";
    };

    revision = lib.mkOption {
      type = lib.types.ints.unsigned;
      default = 0;
      example = lib.literalExpression "self.lastModified";
      description = ''
        Age of the configuration, in seconds since 1970: the flake's
        `lastModified`. The reset knows by it that an older generation was
        booted, which must not wipe what a newer one keeps.
      '';
    };

    snapshots = {
      subvolume = lib.mkOption {
        type = lib.types.str;
        default = if flagged == [ ] then "@snapshots" else (lib.head flagged).name;
        defaultText = lib.literalExpression ''the subvolume with flag "snapshots"'';
        description = "Subvolume that holds the snapshots.";
      };

      clean = lib.mkOption {
        type = lib.types.str;
        default = "CLEAN";
        description = "Name of the snapshot that holds the declared state of a volume.";
      };
    };

    persist = {
      paths = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        example = [ "/home/*/Projects" ];
        description = ''
          What survives a reset, with all that is below: absolute paths. `*`
          stands for any one name or part of one. Modules add what they need;
          what a NixOS workstation needs is there already (persist.base).
        '';
      };

      exclude = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = [ ];
        example = [ "/home/*/Projects/*/node_modules" ];
        description = ''
          What is reset although it lies below a path that persists. The longest
          rule decides.
        '';
      };

      base = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether the paths that any NixOS workstation needs are among persist.paths.";
      };

      withoutEffect = lib.mkOption {
        type = lib.types.listOf lib.types.str;
        default = (plan.fromDisk disk).withoutEffect;
        defaultText = lib.literalExpression "computed";
        readOnly = true;
        description = "Rules that fall on volumes which are never reset: kept anyway.";
      };
    };
  };
}
