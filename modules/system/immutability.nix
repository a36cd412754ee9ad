# The reset at boot: its plan, its unit in the initrd, the cleanup after the
# boot, the boot-menu entries, and a message when something went wrong.
{
  config,
  lib,
  pkgs,
  utils,
  ...
}:
let
  inherit (config.settings) disk;
  cfg = disk.immutability;
  nixosGo = config.programs.nixos-go;
  functions = import ../../nix/lib;

  planned = functions.plan.fromDisk disk;
  planFile = pkgs.writeText "immutability-plan.json" (builtins.toJSON planned.plan);
  resetProgram = "${nixosGo.initrdPackage}/bin/initrd-reset";

  volumes = lib.attrValues disk.subvolumes;
  resetVolumes = lib.filter (v: v.resetOnBoot) volumes;
  snapshotVolumes = lib.filter (v: v.flag == "snapshots") volumes;

  btrfsMounts = lib.filter (fs: fs.fsType == "btrfs") (lib.attrValues config.fileSystems);
  optionsOf = prefix: fs: lib.filter (lib.hasPrefix prefix) fs.options;

  # Is the subvolume mounted where the settings say? A /nix that only the
  # settings have on a subvolume of its own would be reset with the root.
  isMounted =
    v:
    let
      subvol = optionsOf "subvol=" config.fileSystems.${v.mountPoint};
    in
    config.fileSystems ? ${v.mountPoint}
    && map (o: lib.removePrefix "/" (lib.removePrefix "subvol=" o)) subvol == [ v.name ];

  inherit (functions.paths) components isPrefix;

  # The longest mount point above a path.
  mountOf =
    path:
    lib.foldl' (
      best: mountPoint:
      if
        isPrefix (components mountPoint) (components path)
        && lib.stringLength mountPoint > lib.stringLength best
      then
        mountPoint
      else
        best
    ) "/" (lib.attrNames config.fileSystems);

  swapFilesReset = lib.filter (
    path:
    !(lib.hasPrefix "/dev/" path) && lib.any (v: v.mountPoint == mountOf path) resetVolumes
  ) (map (swap: swap.device) config.swapDevices);

  recovery = {
    restore-previous = "restore-previous";
    restore-penultimate = "restore-penultimate";
    no-reset = "disabled";
  };

  notice = "/run/immutability/notice";
in
{
  imports = [
    ../settings.nix
    ./toolkit.nix
  ];

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = nixosGo.enable;
        message = "nixos-go: settings.disk.immutability needs programs.nixos-go.enable.";
      }
      {
        assertion = config.boot.initrd.systemd.enable;
        message = "nixos-go: the reset is a unit of systemd in the initrd (boot.initrd.systemd.enable).";
      }
      {
        assertion = !config.system.etc.overlay.enable;
        message = "nixos-go: system.etc.overlay and a root that is reset cannot be combined: the overlay's upper layer would be wiped under it.";
      }
      {
        assertion = !config.users.mutableUsers;
        message = "nixos-go: with users.mutableUsers a password changed by passwd is back at its old value after a reset; set it to false and use nixos-change-password.";
      }
      {
        assertion = lib.all (fs: optionsOf "subvolid=" fs == [ ]) btrfsMounts;
        message = "nixos-go: a mount option subvolid= names a subvolume by a number that changes with every reset: use subvol=.";
      }
      {
        assertion = swapFilesReset == [ ];
        message = "nixos-go: swap files in a volume that is reset: ${toString swapFilesReset}. Give them a subvolume of their own.";
      }
    ]
    ++ map (v: {
      assertion = isMounted v;
      message = "nixos-go: settings.disk.subvolumes has ${v.name} at ${v.mountPoint}, but nothing is mounted there with subvol=${v.name}. Correct its name, or set its enable to false.";
    }) (lib.filter (v: v.flag == null) volumes);

    boot.initrd.systemd = {
      enable = lib.mkDefault true;
      storePaths = [ resetProgram ];
      contents."/etc/immutability/plan.json".source = planFile;
      services.immutability = functions.units.reset {
        deviceUnit = "${utils.escapeSystemdPath cfg.device}.device";
        program = resetProgram;
      };
    };

    # The same plan in each generation: the tools read there what the next
    # boot will do, without an evaluation.
    environment.etc."immutability/plan.json".source = planFile;

    # Lanzaboote ignores an edited command line under Secure Boot, so the other
    # modes are entries of the boot menu.
    specialisation = lib.mkIf cfg.recoveryEntries (
      lib.mapAttrs (_: mode: {
        configuration.boot.kernelParams = [ "immutability.mode=${mode}" ];
      }) recovery
    );

    systemd.services.immutability-cleanup = functions.units.cleanup {
      program = "${nixosGo.package}/bin/nixos-snapshot";
    };

    systemd.timers.immutability-cleanup = functions.units.cleanupTimer;

    # Old states hold old permissions and setuid programs: nobody else looks in.
    systemd.tmpfiles.rules = map (v: "z ${v.mountPoint} 0700 root root -") snapshotVolumes;

    systemd.services.immutability-notice = functions.units.notice // {
      path = [ pkgs.jq ];
      script = builtins.readFile ../../nix/lib/notice.sh;
    };

    environment.interactiveShellInit = ''
      if [ -s ${notice} ]; then cat ${notice}; fi
    '';

    warnings =
      lib.optional
        (
          config.fileSystems ? "/"
          && config.fileSystems."/".fsType == "btrfs"
          && toString config.fileSystems."/".device != cfg.device
        )
        "nixos-go: the reset works on ${cfg.device}, but / is mounted from ${toString config.fileSystems."/".device}: make sure they are the same file system.";
  };
}
