# The systemd units of the reset, as data in the form of NixOS' own options,
# and as text: the tests boot the very units that the modules install.
let
  inherit (builtins)
    attrNames
    concatLists
    concatStringsSep
    filter
    isBool
    isList
    map
    ;

  line =
    key: value:
    "${key}=${
      if isBool value then
        (if value then "true" else "false")
      else if isList value then
        concatStringsSep " " value
      else
        toString value
    }";

  section =
    name: attrs:
    if attrs == { } then
      [ ]
    else
      [ "[${name}]" ] ++ map (key: line key attrs.${key}) (attrNames attrs) ++ [ "" ];

  # The options of a unit that are lists of other units, and their spelling in
  # the unit file.
  lists = {
    requires = "Requires";
    wants = "Wants";
    after = "After";
    before = "Before";
    conflicts = "Conflicts";
  };
  install = {
    wantedBy = "WantedBy";
  };

  rename =
    names: unit:
    builtins.listToAttrs (
      map (option: {
        name = names.${option};
        value = unit.${option};
      }) (filter (option: unit ? ${option}) (attrNames names))
    );
in
{
  # Resets the volumes while nothing of them is mounted: after the device is
  # there and any hibernated image was resumed from (which never returns here),
  # before the root is mounted.
  reset =
    {
      deviceUnit, # "dev-mapper-root.device"
      program, # path of initrd-reset
      plan ? "/etc/immutability/plan.json",
    }:
    {
      description = "Reset the volumes to their declared state";
      wantedBy = [ "initrd.target" ];
      requires = [ deviceUnit ];
      after = [
        deviceUnit
        "systemd-hibernate-resume.service"
        "local-fs-pre.target"
      ];
      before = [
        "sysroot.mount"
        "shutdown.target"
      ];
      conflicts = [ "shutdown.target" ];
      unitConfig = {
        DefaultDependencies = false;
        RefuseManualStart = true;
        AssertPathExists = "/etc/initrd-release";
      };
      serviceConfig = {
        Type = "oneshot";
        RemainAfterExit = true;
        ExecStart = "${program} --plan ${plan}";
        TimeoutStartSec = "5min";
      };
    };

  # Deletes, once the machine is up, what the reset only moved out of the way.
  cleanup =
    {
      program, # path of nixos-snapshot
    }:
    {
      description = "Delete what the last reset put aside";
      serviceConfig = {
        Type = "oneshot";
        ExecStart = "${program} gc";
        CPUSchedulingPolicy = "idle";
        IOSchedulingClass = "idle";
        Nice = 19;
        # Its mount of the whole file system is nobody else's business.
        PrivateMounts = true;
        PrivateNetwork = true;
        NoNewPrivileges = true;
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        RestrictRealtime = true;
        RestrictAddressFamilies = "AF_UNIX";
      };
    };

  # When the cleanup runs: the boot is over, and nobody waits for the disk.
  cleanupTimer = {
    description = "Delete what the last reset put aside, once the boot is over";
    wantedBy = [ "timers.target" ];
    timerConfig = {
      OnBootSec = "1min";
      AccuracySec = "10s";
    };
  };

  # A reset that failed leaves a bootable machine, so somebody has to say it.
  # What it runs is notice.sh.
  notice = {
    description = "Tell whether the reset at boot worked";
    wantedBy = [ "multi-user.target" ];
    before = [ "systemd-user-sessions.service" ];
    # Not after a switch that brings the reset to a machine without one.
    unitConfig.ConditionPathExists = "/run/booted-system/etc/immutability/plan.json";
    serviceConfig = {
      Type = "oneshot";
      RemainAfterExit = true;
      RuntimeDirectory = "immutability";
      RuntimeDirectoryPreserve = true;
      UMask = "0022";
    };
  };

  # unit -> the text of its file
  text =
    unit:
    concatStringsSep "\n" (concatLists [
      (section "Unit" (
        { Description = unit.description; } // rename lists unit // (unit.unitConfig or { })
      ))
      (section "Service" (unit.serviceConfig or { }))
      (section "Timer" (unit.timerConfig or { }))
      (section "Install" (rename install unit))
    ]);
}
