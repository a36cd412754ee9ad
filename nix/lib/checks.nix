# What a machine's settings must not be, found before anything is built:
# settings -> { assertions = [ { assertion, message } ]; warnings = [ text ]; }
let
  inherit (builtins)
    all
    any
    attrValues
    concatLists
    concatMap
    elem
    filter
    head
    length
    map
    match
    sort
    ;
  paths = import ./paths.nix;
  plan = import ./plan.nix;
in
settings:
let
  inherit (settings) disk;
  cfg = disk.immutability;
  volumes = attrValues disk.subvolumes;
  flagged = flag: filter (v: v.flag == flag) volumes;

  # The volume that holds a path: the longest mount point above it.
  volumeOf =
    path:
    let
      at = v: paths.components v.mountPoint;
      above = filter (v: paths.isPrefix (at v) (paths.components path)) volumes;
      deepest = sort (a: b: length (at a) > length (at b)) above;
    in
    if deepest == [ ] then null else head deepest;

  covers =
    path: rule:
    let
      parts = map paths.squeezeStars (paths.components rule);
      names = paths.components path;
    in
    length parts <= length names && paths.matchPrefix parts names;

  survives =
    path:
    let
      volume = volumeOf path;
    in
    !cfg.enable
    || volume == null
    || !volume.resetOnBoot
    || (any (covers path) cfg.persist.paths && !(any (covers path) cfg.persist.exclude));

  early =
    path:
    let
      volume = volumeOf path;
    in
    volume == null || volume.mountPoint == "/" || volume.neededForBoot;

  check = assertion: message: { inherit assertion message; };
  say = text: "nixos-go: ${text}";

  sameMount =
    v: filter (w: paths.components w.mountPoint == paths.components v.mountPoint) volumes;

  aboutVolumes =
    map (
      v:
      check (
        paths.problem v.mountPoint == null
      ) "the mount point ${v.mountPoint} of ${v.name} is no clean absolute path"
    ) volumes
    ++ map (
      v:
      check (cfg.enable || sameMount v == [ v ])
        "${toString (length (sameMount v))} subvolumes are mounted at ${v.mountPoint}"
    ) volumes
    ++ map (
      v: check (cfg.enable || v.name != "") "the subvolume mounted at ${v.mountPoint} has no name"
    ) volumes
    ++ map (
      v:
      check (all (o: match "subvol(id)?=.*" o == null) v.mountOptions)
        "mountOptions of ${v.name} hold subvol= or subvolid=: the module adds the name, and an id changes with every reset"
    ) volumes
    ++ [
      (check (any (v: v.mountPoint == "/") volumes) "no subvolume is mounted at /")
      (check (length (flagged "snapshots") <= 1) "more than one subvolume has the flag snapshots")
      (check (length (flagged "swap") <= 1) "more than one subvolume has the flag swap")
    ]
    ++ map (
      v: check (!v.resetOnBoot) "the subvolume ${v.name} holds the swap file and cannot be reset"
    ) (flagged "swap")
    ++ [
      (check (
        !disk.swap.enable || flagged "swap" != [ ]
      ) "a swap file needs a subvolume with the flag \"swap\"")
    ];

  aboutReset =
    if !cfg.enable then
      [ ]
    else
      map (message: check false message) (plan.fromDisk disk).errors
      ++ [
        (check (survives "/nix") "/nix would be wiped at every boot: give it a volume without resetOnBoot")
        (check (survives settings.secrets.path)
          "settings.secrets.path (${settings.secrets.path}) would be wiped at every boot, and the accounts locked: add it to persist.paths"
        )
        (check (survives settings.secrets.hashedPasswordFile)
          "settings.secrets.hashedPasswordFile (${settings.secrets.hashedPasswordFile}) would be wiped at every boot: add it to persist.paths"
        )
        (check (
          settings.boot.method != "Secure-Boot" || survives settings.boot.pkiBundle
        ) "settings.boot.pkiBundle (${settings.boot.pkiBundle}) would be wiped at every boot: add it to persist.paths")
      ];

  aboutSecrets = concatMap (
    path: [
      (check (match "/nix/store(/.*)?" path == null)
        "${path} is in the Nix store, which everybody can read: write the path as a string, not as a Nix path"
      )
      (check (early path)
        "${path} is read while the system is activated: set neededForBoot on the volume that holds it"
      )
    ]
  ) [
    settings.secrets.path
    settings.secrets.hashedPasswordFile
  ];

  nvidia = settings.hardware.nvidia;

  aboutRest = [
    (check (
      !(elem settings.user.admin.name [
        "root"
        "nobody"
      ])
    ) "the admin's account cannot be ${settings.user.admin.name}")
    (check (
      !settings.tpm.enable || disk.encryption.enable
    ) "settings.tpm.enable needs settings.disk.encryption.enable: the TPM holds the disk's key")
    (check (
      !settings.sleep.hibernate || disk.swap.enable
    ) "settings.sleep.hibernate needs settings.disk.swap.enable: the image is written there")
    (check (
      !nvidia.primeOffload
      || (nvidia.nvidiaBusId != null && (nvidia.amdgpuBusId != null) != (nvidia.intelBusId != null))
    ) "PRIME offload needs nvidiaBusId and one of amdgpuBusId and intelBusId")
    (check (
      !settings.apps.virt.vfio || settings.hardware.cpu != null
    ) "settings.apps.virt.vfio needs settings.hardware.cpu, to switch its IOMMU on")
  ];

  restoring = elem cfg.mode [
    "restore-previous"
    "restore-penultimate"
  ];
in
{
  assertions = map (a: a // { message = say a.message; }) (
    concatLists [
      aboutVolumes
      aboutReset
      aboutSecrets
      aboutRest
    ]
  );

  warnings = map say (
    (
      if cfg.enable && restoring then
        [
          "settings.disk.immutability.mode is ${cfg.mode}: every boot puts that state back, and what was done since is moved aside. Set it to reset when you have what you wanted."
        ]
      else
        [ ]
    )
    ++ (
      if cfg.enable && cfg.mode == "disabled" then
        [ "settings.disk.immutability.mode is disabled: nothing is reset." ]
      else
        [ ]
    )
  );
}
