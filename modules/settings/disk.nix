# The disk: an EFI partition and one BTRFS file system, in LUKS if wanted.
{ config, lib, ... }:
let
  cfg = config.settings.disk;
  flagOptions = {
    snapshots = [
      "nosuid"
      "nodev"
      "noexec"
      "noatime"
    ];
    swap = [ "noatime" ];
  };

  subvolume =
    { config, ... }:
    {
      options = {
        enable = lib.mkOption {
          type = lib.types.bool;
          default = true;
          description = "Whether the machine has this subvolume.";
        };

        name = lib.mkOption {
          type = lib.types.str;
          default = "";
          example = "@home";
          description = "Name in the top level of the file system.";
        };

        mountPoint = lib.mkOption {
          type = lib.types.strMatching "/.*";
          example = "/home";
          description = "Where it is mounted.";
        };

        mountOptions = lib.mkOption {
          type = lib.types.listOf lib.types.str;
          default =
            if config.flag == null then
              [
                "compress=zstd"
                "noatime"
              ]
            else
              flagOptions.${config.flag};
          defaultText = lib.literalExpression ''[ "compress=zstd" "noatime" ]'';
          description = "Mount options, without `subvol=`.";
        };

        neededForBoot = lib.mkOption {
          type = lib.types.bool;
          default = false;
          description = "Whether it is mounted in the initrd, before the system is activated.";
        };

        resetOnBoot = lib.mkOption {
          type = lib.types.bool;
          default = false;
          description = "Whether it is reset to its declared state at every boot.";
        };

        keepNothing = lib.mkOption {
          type = lib.types.bool;
          default = false;
          description = "Confirms that a volume which is reset is meant to keep nothing.";
        };

        flag = lib.mkOption {
          type = lib.types.nullOr (
            lib.types.enum [
              "snapshots"
              "swap"
            ]
          );
          default = null;
          description = "What the toolkit itself uses it for: its snapshots, or the swap file.";
        };
      };
    };
in
{
  options.settings.disk = {
    enable = lib.mkOption {
      type = lib.types.bool;
      default = true;
      description = ''
        Whether the partitions and mounts are declared from these settings.
        False on a machine whose mounts are declared elsewhere: the settings
        then only describe them.
      '';
    };

    device = lib.mkOption {
      type = lib.types.strMatching "(/dev/.+)?";
      default = "";
      example = "/dev/disk/by-id/nvme-Samsung_SSD_990_PRO_2TB_S0000000000000";
      description = "The disk that the installer may wipe; best a name from /dev/disk/by-id.";
    };

    labels = {
      esp = lib.mkOption {
        type = lib.types.strMatching "[A-Z0-9_-]{1,11}";
        default = "ESP";
        description = "Label of the EFI partition's file system.";
      };

      main = lib.mkOption {
        type = lib.types.strMatching "[^/]{1,255}";
        default = "nixos";
        description = "Label of the BTRFS file system.";
      };
    };

    partlabels = {
      esp = lib.mkOption {
        type = lib.types.strMatching "[A-Za-z0-9_.-]{1,36}";
        default = "disk-main-esp";
        description = "Name of the EFI partition in the partition table.";
      };

      main = lib.mkOption {
        type = lib.types.strMatching "[A-Za-z0-9_.-]{1,36}";
        default = "disk-main-${if cfg.encryption.enable then "luks" else "root"}";
        defaultText = lib.literalExpression ''"disk-main-luks" or "disk-main-root"'';
        description = "Name of the main partition in the partition table.";
      };
    };

    byPartlabel = {
      esp = lib.mkOption {
        type = lib.types.str;
        default = "/dev/disk/by-partlabel/${cfg.partlabels.esp}";
        readOnly = true;
        description = "Path of the EFI partition.";
      };

      main = lib.mkOption {
        type = lib.types.str;
        default = "/dev/disk/by-partlabel/${cfg.partlabels.main}";
        readOnly = true;
        description = "Path of the main partition.";
      };
    };

    espSizeMiB = lib.mkOption {
      type = lib.types.ints.between 256 8192;
      default = 1024;
      description = "Size of the EFI partition, which holds every generation's kernel and initrd.";
    };

    encryption = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = "Whether the main partition is encrypted (LUKS2).";
      };

      mapper = lib.mkOption {
        type = lib.types.strMatching "[A-Za-z0-9_.-]+";
        default = "root";
        description = "Name of the opened partition below /dev/mapper.";
      };

      allowDiscards = lib.mkOption {
        type = lib.types.bool;
        default = true;
        description = ''
          Whether the disk learns which blocks are free: an SSD stays fast, and
          who holds the disk can see how full it is.
        '';
      };

      passwordFile = lib.mkOption {
        type = lib.types.strMatching "/run/.+";
        default = "/run/nixos-go/luks-passphrase";
        description = "Where the installer leaves the passphrase while disko reads it.";
      };
    };

    swap = {
      enable = lib.mkOption {
        type = lib.types.bool;
        default = false;
        description = "Whether there is a swap file.";
      };

      sizeGiB = lib.mkOption {
        type = lib.types.ints.positive;
        default = 16;
        description = "Size of the swap file; to hibernate, at least that of the memory.";
      };
    };

    subvolumes = lib.mkOption {
      type = lib.types.attrsOf (lib.types.submodule subvolume);
      apply =
        all:
        builtins.mapAttrs (_: v: removeAttrs v [ "enable" ]) (
          lib.filterAttrs (_: v: v.enable) all
        );
      description = ''
        The subvolumes of the BTRFS file system. `root`, `home`, `nix` and
        `snapshots` are there unless their `enable` is false; `swap` where
        there is a swap file.
      '';
    };
  };

  config.settings.disk.subvolumes = {
    root = {
      name = lib.mkDefault "@root";
      mountPoint = lib.mkDefault "/";
      neededForBoot = lib.mkDefault true;
      resetOnBoot = lib.mkDefault true;
    };

    home = {
      name = lib.mkDefault "@home";
      mountPoint = lib.mkDefault "/home";
      resetOnBoot = lib.mkDefault true;
    };

    nix = {
      name = lib.mkDefault "@nix";
      mountPoint = lib.mkDefault "/nix";
      neededForBoot = lib.mkDefault true;
    };

    snapshots = {
      name = lib.mkDefault "@snapshots";
      mountPoint = lib.mkDefault "/.snapshots";
      flag = lib.mkDefault "snapshots";
    };

    swap = {
      enable = lib.mkDefault cfg.swap.enable;
      name = lib.mkDefault "@swap";
      mountPoint = lib.mkDefault "/.swap";
      flag = lib.mkDefault "swap";
    };
  };
}
