# nix/lib/plan.nix: the plan file of a machine.
{
  test,
  withReset,
  planOf,
  ...
}:
let
  inherit (builtins)
    attrNames
    elem
    head
    map
    ;
in
[
  (test "plan: fields" (attrNames (planOf (withReset { })).plan) [
    "clean"
    "device"
    "mode"
    "revision"
    "snapshots"
    "version"
    "volumes"
  ])
  (test "plan: fields of a volume" (map attrNames (planOf (withReset { })).plan.volumes) (
    let
      fields = [
        "exclude"
        "keep"
        "mountPoint"
        "name"
      ];
    in
    [
      fields
      fields
    ]
  ))
  (test "plan: by mount point" (map (v: v.name) (planOf (withReset { })).plan.volumes) [
    "@root"
    "@home"
  ])
  (test "plan: device with LUKS" (planOf (withReset { })).plan.device "/dev/mapper/root")
  (test "plan: device without"
    (planOf (withReset {
      disk.encryption.enable = false;
    })).plan.device
    "/dev/disk/by-partlabel/disk-main-root"
  )
  (test "plan: the snapshots subvolume is the one with the flag"
    (planOf (withReset {
      disk.subvolumes.snapshots.name = "@old";
    })).plan.snapshots
    "@old"
  )
  (test "plan: keepNothing only when said"
    (planOf (withReset {
      disk.subvolumes.scratch = {
        name = "@scratch";
        mountPoint = "/scratch";
        resetOnBoot = true;
        keepNothing = true;
      };
    })).plan.volumes
    (
      (planOf (withReset { })).plan.volumes
      ++ [
        {
          name = "@scratch";
          mountPoint = "/scratch";
          keep = [ ];
          exclude = [ ];
          keepNothing = true;
        }
      ]
    )
  )
  (test "plan: what lies on @var has no effect"
    (elem "/var/log"
      (withReset {
        disk.subvolumes.var = {
          name = "@var";
          mountPoint = "/var";
          neededForBoot = true;
        };
      }).settings.disk.immutability.persist.withoutEffect
    )
    true
  )
  (test "plan: without @var it is kept" (elem "/var/log" (head
    (planOf (withReset { })).plan.volumes
  ).keep) true)
]
