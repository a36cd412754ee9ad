# The disk as settings.disk describes it. With disko imported, disko makes and
# mounts it; without, the same mounts are declared for a disk that is there.
{
  config,
  lib,
  options,
  ...
}:
let
  cfg = config.settings.disk;
  volumes = lib.attrValues cfg.subvolumes;
  isSwap = v: cfg.swap.enable && v.flag == "swap";
  swapFile = "swapfile";

  luks = {
    inherit (cfg.encryption) allowDiscards;
    # The volume key is measured into PCR 15, so that nobody who swaps the
    # partition for one of his own gets a second secret from the TPM.
    crypttabExtraOpts = lib.optionals config.settings.tpm.enable [
      "tpm2-device=auto"
      "tpm2-measure-pcr=yes"
    ];
  };

  btrfs = {
    type = "btrfs";
    extraArgs = [
      "--force"
      "--label"
      cfg.labels.main
    ];
    subvolumes = lib.listToAttrs (
      map (
        v:
        lib.nameValuePair v.name (
          {
            mountpoint = v.mountPoint;
            inherit (v) mountOptions;
          }
          // lib.optionalAttrs (isSwap v) {
            swap.${swapFile}.size = "${toString cfg.swap.sizeGiB}G";
          }
        )
      ) volumes
    );
  };

  withDisko = {
    disko.devices.disk.main = {
      type = "disk";
      inherit (cfg) device;
      content = {
        type = "gpt";
        partitions = {
          esp = {
            label = cfg.partlabels.esp;
            type = "EF00";
            size = "${toString cfg.espSizeMiB}M";
            content = {
              type = "filesystem";
              format = "vfat";
              extraArgs = [
                "-n"
                cfg.labels.esp
              ];
              mountpoint = "/boot";
              mountOptions = [ "umask=0077" ];
            };
          };

          main = {
            label = cfg.partlabels.main;
            size = "100%";
            content =
              if cfg.encryption.enable then
                {
                  type = "luks";
                  name = cfg.encryption.mapper;
                  inherit (cfg.encryption) passwordFile;
                  extraFormatArgs = [
                    "--type"
                    "luks2"
                  ];
                  settings = luks;
                  content = btrfs;
                }
              else
                btrfs;
          };
        };
      };
    };
  };

  withoutDisko = {
    boot.initrd.luks.devices = lib.mkIf cfg.encryption.enable {
      ${cfg.encryption.mapper} = luks // {
        device = cfg.byPartlabel.main;
      };
    };

    fileSystems =
      lib.listToAttrs (
        map (
          v:
          lib.nameValuePair v.mountPoint {
            inherit (cfg.immutability) device;
            fsType = "btrfs";
            options = v.mountOptions ++ [ "subvol=${v.name}" ];
          }
        ) volumes
      )
      // {
        "/boot" = {
          device = cfg.byPartlabel.esp;
          fsType = "vfat";
          options = [ "umask=0077" ];
        };
      };

    swapDevices = map (v: { device = "${v.mountPoint}/${swapFile}"; }) (lib.filter isSwap volumes);
  };
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf cfg.enable (
    lib.mkMerge [
      (if options ? disko then withDisko else withoutDisko)
      {
        assertions = lib.optional (options ? disko) {
          assertion = cfg.device != "";
          message = "nixos-go: settings.disk.device is empty: name the disk that the installer may wipe, best by /dev/disk/by-id.";
        };

        fileSystems = lib.listToAttrs (
          map (v: lib.nameValuePair v.mountPoint { neededForBoot = true; }) (
            lib.filter (v: v.neededForBoot) volumes
          )
        );

        services.btrfs.autoScrub = {
          enable = lib.mkDefault true;
          # One mount of the file system is enough: a scrub reads all of it.
          fileSystems = lib.mkDefault [ "/" ];
        };
      }
    ]
  );
}
