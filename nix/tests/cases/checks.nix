# nix/lib/checks.nix and the types of the settings: what a machine must not be.
{
  test,
  fails,
  machine,
  withReset,
  broken,
  ...
}:
let
  inherit (builtins) any length match;

  complains = text: config: any (message: match ".*${text}.*" message != null) (broken config);
  refuses =
    what: text: extra:
    test "refused: ${what}" (complains text (withReset extra)) true;
in
[
  (test "nothing wrong with the defaults" (broken (machine { })) [ ])
  (test "nothing wrong with the defaults and a reset" (broken (withReset { })) [ ])
  (refuses "a rule with .." "/etc/[.][.]/x" { disk.immutability.persist.paths = [ "/etc/../x" ]; })
  (refuses "a rule on a mount point" "own mount point" {
    disk.immutability.persist.paths = [ "/home" ];
  })
  (refuses "a volume without a name" "/data has no name" {
    disk.subvolumes.data.mountPoint = "/data";
  })
  (refuses "a name with a slash" "one path component" { disk.subvolumes.home.name = "a/b"; })
  (refuses "two volumes at one mount point" "the same mount point" {
    disk.subvolumes.data = {
      name = "@data";
      mountPoint = "/home/";
    };
  })
  (refuses "one name twice" "@root is named twice" { disk.subvolumes.home.name = "@root"; })
  (refuses "subvolid=" "subvolid=" { disk.subvolumes.home.mountOptions = [ "subvolid=257" ]; })
  (refuses "no root" "mounted at /" { disk.subvolumes.root.enable = false; })
  (refuses "nothing to reset" "no volume has resetOnBoot" {
    disk.subvolumes.root.resetOnBoot = false;
    disk.subvolumes.home.resetOnBoot = false;
  })
  (refuses "a volume that nothing is kept in" "would be emptied" {
    disk.subvolumes.data = {
      name = "@data";
      mountPoint = "/data";
      resetOnBoot = true;
    };
  })
  (refuses "snapshots that are reset" "cannot be reset" {
    disk.subvolumes.snapshots.resetOnBoot = true;
  })
  (refuses "a swap file in a volume that is reset" "holds the swap file" {
    disk.swap.enable = true;
    disk.subvolumes.swap.resetOnBoot = true;
  })
  (refuses "a swap file without a subvolume" "needs a subvolume" {
    disk.swap.enable = true;
    disk.subvolumes.swap.enable = false;
  })
  (refuses "a store that is wiped" "/nix would be wiped" { disk.subvolumes.nix.enable = false; })
  (refuses "secrets that are wiped" "accounts locked" { secrets.path = "/var/secrets"; })
  (refuses "secrets that come too late" "neededForBoot" {
    disk.subvolumes.var = {
      name = "@var";
      mountPoint = "/var";
    };
  })
  (refuses "secrets in the store" "Nix store" { secrets.path = "/nix/store/x-secrets"; })
  (refuses "keys that are wiped" "pkiBundle" {
    boot.method = "Secure-Boot";
    disk.immutability.persist.base = false;
    disk.immutability.persist.paths = [
      "/var/lib/nixos-go"
      "/home/*/Documents"
    ];
  })
  (refuses "CLEAN by the name of another" "cannot be the name" {
    disk.immutability.snapshots.clean = "PREVIOUS";
  })
  (refuses "a TPM without encryption" "settings.tpm.enable" {
    tpm.enable = true;
    disk.encryption.enable = false;
  })
  (refuses "hibernation without swap" "settings.sleep.hibernate" { sleep.hibernate = true; })
  (refuses "PRIME without addresses" "PRIME" { hardware.nvidia.primeOffload = true; })
  (refuses "root as admin" "cannot be root" { user.admin.name = "root"; })

  (test "a restore left on is a warning" (length
    (withReset {
      disk.immutability.mode = "restore-previous";
    }).warnings
  ) 1)
  (test "a reset is none" (withReset { }).warnings [ ])

  (test "a Nix path as secrets folder is a wrong type" (fails (machine {
    secrets.path = ../fixtures;
  }).settings) true)
  (test "an option that does not exist" (fails (machine { dsik = { }; }).settings) true)
  (test "a wrong mode" (fails (withReset { disk.immutability.mode = "on"; }).settings) true)
  (test "a read-only option" (fails (machine {
    disk.byPartlabel.esp = "/dev/x";
  }).settings) true)
]
