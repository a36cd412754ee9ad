# The plan file (plan.json) of a machine, from its `settings.disk`.
#
# fromDisk disk -> { plan, errors, withoutEffect }: errors are sentences about
# what the reset would refuse at boot; the plan is to be used only when there
# are none.
let
  inherit (builtins)
    attrValues
    concatMap
    filter
    map
    sort
    stringLength
    match
    ;
  split = import ./split.nix;

  isName =
    name:
    name != ""
    && stringLength name <= 255
    && name != "."
    && name != ".."
    && match "[^/\n]+" name != null;

  # Names that the reset uses below the snapshots of a volume (DESIGN: names
  # on disk).
  taken = [
    "PREVIOUS"
    "PENULTIMATE"
    "CURRENT"
    "NEXT"
    "REPLACED"
  ];
in
{
  inherit isName;

  fromDisk =
    disk:
    let
      cfg = disk.immutability;
      # By mount point, so that the order is that of a path from the root.
      volumes = sort (a: b: a.mountPoint < b.mountPoint) (
        map (v: v // { reset = v.resetOnBoot; }) (attrValues disk.subvolumes)
      );
      shared = split volumes cfg.persist.paths cfg.persist.exclude;

      entry =
        v:
        {
          inherit (v)
            name
            mountPoint
            keep
            exclude
            ;
        }
        // (if v.keep == [ ] && v.keepNothing then { keepNothing = true; } else { });

      check = ok: message: if ok then [ ] else [ message ];
      once =
        list:
        concatMap (
          name: check (filter (n: n == name) list == [ name ]) "the subvolume ${name} is named twice"
        ) list;
      resets = filter (v: v.reset) volumes;
    in
    {
      inherit (shared) withoutEffect;

      plan = {
        version = 1;
        inherit (cfg) device mode revision;
        snapshots = cfg.snapshots.subvolume;
        clean = cfg.snapshots.clean;
        volumes = map entry shared.volumes;
      };

      errors =
        concatMap (
          v:
          check (isName v.name) (
            if v.name == "" then
              "the subvolume mounted at ${v.mountPoint} has no name"
            else
              "a subvolume's name is one path component, not \"${v.name}\""
          )
        ) volumes
        ++ once (filter (n: n != "") (map (v: v.name) resets))
        ++ shared.errors
        ++ check (
          resets != [ ]
        ) "no volume has resetOnBoot: set it on one, or turn immutability off"
        ++ concatMap (
          v: check (v.name != cfg.snapshots.subvolume) "the snapshots subvolume ${v.name} cannot be reset"
        ) resets
        ++ concatMap (
          v:
          check (v.keep != [ ] || v.keepNothing)
            "no rule reaches the volume ${v.name}: it would be emptied at every boot; set keepNothing on it if that is meant"
        ) shared.volumes
        ++ check (isName cfg.snapshots.subvolume) "the snapshots subvolume has no usable name"
        ++ check (
          isName cfg.snapshots.clean
          && !(builtins.elem cfg.snapshots.clean taken)
          && match "AGED-.*" cfg.snapshots.clean == null
        ) "${cfg.snapshots.clean} cannot be the name of the CLEAN snapshot"
        ++ check (cfg.device != "") "the reset has no device to work on (settings.disk.immutability.device)";
    };
}
