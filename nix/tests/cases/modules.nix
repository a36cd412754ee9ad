# The modules under modules/system: what they make of the settings.
{
  test,
  machine,
  withReset,
  functions,
  ...
}:
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    filter
    fromJSON
    head
    listToAttrs
    map
    ;
  inherit (import ../call.nix)
    at
    broken
    call
    complains
    lib
    ;
  system = name: ../../../modules/system + "/${name}.nix";

  # NixOS as the module of the reset finds it, on a machine with these settings.
  nixos =
    settings:
    let
      config = withReset settings;
      volumes = builtins.attrValues config.settings.disk.subvolumes;
    in
    {
      inherit (config) settings;
      programs.nixos-go = {
        enable = true;
        package = "/nixos-go";
        initrdPackage = "/initrd-reset";
      };
      fileSystems = listToAttrs (
        map (v: {
          name = v.mountPoint;
          value = {
            fsType = "btrfs";
            device = "/dev/mapper/root";
            options = [ "subvol=${v.name}" ];
          };
        }) volumes
      );
      swapDevices = [ ];
      boot.initrd.systemd.enable = true;
      system.etc.overlay.enable = false;
      users.mutableUsers = false;
    };
  reset = config: call (system "immutability") { inherit config; };
  refuses =
    what: text: config:
    test "refused by the reset: ${what}" (complains text (broken (reset config))) true;

  plain = nixos { };
  unit = head (
    at [
      "boot"
      "initrd"
      "systemd"
      "services"
      "immutability"
    ] (reset plain)
  );
  planFiles = concatMap (path: at path (reset plain)) [
    [
      "boot"
      "initrd"
      "systemd"
      "contents"
      "/etc/immutability/plan.json"
      "source"
    ]
    [
      "environment"
      "etc"
      "immutability/plan.json"
      "source"
    ]
  ];

  # The disk, with and without disko.
  disko =
    settings:
    call (system "disk") {
      config = machine settings;
      options.disko = { };
    };
  plainDisk = settings: call (system "disk") { config = machine settings; };
  partitions =
    settings:
    head (
      at [
        "disko"
        "devices"
        "disk"
        "main"
        "content"
        "partitions"
      ] (disko settings)
    );
  luks = settings: (partitions settings).main.content;

  boot =
    settings: options:
    call (system "boot") {
      config = machine settings;
      inherit options;
    };
  secure.boot.method = "Secure-Boot";
  lanzaboote.boot.lanzaboote = { };

  network = settings: call (system "networking") { config = machine settings; };
  firewall =
    key: settings:
    at [
      "networking"
      "firewall"
      key
    ] (network settings);

  admin =
    path:
    at path (
      call (system "admin") {
        config = machine { user.admin.name = "alice"; } // {
          system.stateVersion = "26.05";
        };
      }
    );

  # The flake of an owner, with these files.
  ownersFlake =
    files:
    (import ../../machines.nix {
      inputs = {
        nixpkgs.lib = lib // {
          nixosSystem = { modules }: modules;
        };
        disko.nixosModules.disko = "disko";
      };
      nixosModules = {
        default = "default";
        settings = "settings";
        disk = "disk";
      };
    })
      {
        self = {
          outPath = toString files;
          lastModified = 7;
        };
        modules = [ "mine" ];
      };
  flake = ownersFlake ../fixtures;
  named = filter builtins.isString;
  common =
    modules:
    head (filter builtins.isFunction modules) {
      config.settings.secrets.path = "/var/lib/secrets";
    };
in
[
  # The reset.
  (test "reset: nothing is refused on a sound machine" (broken (reset plain)) [ ])
  (refuses "subvolid=" "subvolid= names a subvolume by a number" (
    plain
    // {
      fileSystems = plain.fileSystems // {
        "/data" = {
          fsType = "btrfs";
          options = [ "subvolid=257" ];
        };
      };
    }
  ))
  (refuses "system.etc.overlay" "system.etc.overlay and a root that is reset" (
    plain // { system.etc.overlay.enable = true; }
  ))
  (refuses "mutable users" "users.mutableUsers" (plain // { users.mutableUsers = true; }))
  (refuses "a swap file in a volume that is reset" "a volume that is reset: /home/swap" (
    plain // { swapDevices = [ { device = "/home/swap"; } ]; }
  ))
  (test "reset: a swap partition, and a file elsewhere, are fine" (broken (
    reset (
      plain
      // {
        swapDevices = [
          { device = "/dev/sda2"; }
          { device = "/nix/swap"; }
        ];
      }
    )
  )) [ ])
  (refuses "a volume that is not mounted" "@home at /home, but nothing is mounted there" (
    plain // { fileSystems = removeAttrs plain.fileSystems [ "/home" ]; }
  ))
  (refuses "an initrd without systemd" "boot.initrd.systemd.enable" (
    plain // { boot.initrd.systemd.enable = false; }
  ))
  (test "reset: off, it defines nothing" (at [ ] (
    call (system "immutability") {
      config = plain // {
        inherit (machine { }) settings;
      };
    }
  )) [ ])
  (test "reset: the unit is the one that the tests boot" unit (
    functions.units.reset {
      deviceUnit = "dev-mapper-root.device";
      program = "/initrd-reset/bin/initrd-reset";
    }
  ))
  (test "reset: the program reaches the initrd" (concatLists (
    at [
      "boot"
      "initrd"
      "systemd"
      "storePaths"
    ] (reset plain)
  )) [ "/initrd-reset/bin/initrd-reset" ])
  (test "reset: initrd and generation have one plan" (map fromJSON planFiles) (
    let
      inherit (functions.plan.fromDisk plain.settings.disk) plan;
    in
    [
      plan
      plan
    ]
  ))
  (test "reset: entries of the boot menu change the kernel's parameters alone"
    (map (builtins.mapAttrs (_: entry: entry.configuration)) (at [ "specialisation" ] (reset plain)))
    [
      {
        no-reset.boot.kernelParams = [ "immutability.mode=disabled" ];
        restore-penultimate.boot.kernelParams = [ "immutability.mode=restore-penultimate" ];
        restore-previous.boot.kernelParams = [ "immutability.mode=restore-previous" ];
      }
    ]
  )
  (test "reset: no entries when they are not wanted" (at [ "specialisation" ] (
    reset (nixos { disk.immutability.recoveryEntries = false; })
  )) [ ])
  (test "reset: the cleanup calls nixos-snapshot" (at [
    "systemd"
    "services"
    "immutability-cleanup"
    "serviceConfig"
    "ExecStart"
  ] (reset plain)) [ "/nixos-go/bin/nixos-snapshot gc" ])
  (test "reset: snapshots are root's alone" (at [
    "systemd"
    "tmpfiles"
    "rules"
  ] (reset plain)) [ [ "z /.snapshots 0700 root root -" ] ])

  # The disk.
  (test "disk: an empty device is refused where the disk is formatted" (complains
    "settings.disk.device is empty"
    (broken (disko { }))
  ) true)
  (test "disk: without disko no device is needed" (broken (plainDisk { })) [ ])
  (test "disk: an ESP of 1 GiB, for root alone" (
    let
      esp = (partitions { }).esp;
    in
    [
      esp.type
      esp.size
      esp.content.mountpoint
      esp.content.mountOptions
    ]
  ) [
    "EF00"
    "1024M"
    "/boot"
    [ "umask=0077" ]
  ])
  (test "disk: LUKS2 with discards" [
    (luks { }).type
    (luks { }).extraFormatArgs
    (luks { }).settings
  ] [
    "luks"
    [
      "--type"
      "luks2"
    ]
    {
      allowDiscards = true;
      crypttabExtraOpts = [ ];
    }
  ])
  (test "disk: the TPM is asked, and the key measured"
    (luks { tpm.enable = true; }).settings.crypttabExtraOpts
    [
      "tpm2-device=auto"
      "tpm2-measure-pcr=yes"
    ]
  )
  (test "disk: the same without disko"
    (map (d: d.crypttabExtraOpts) (
      at [
        "boot"
        "initrd"
        "luks"
        "devices"
        "root"
      ] (plainDisk { tpm.enable = true; })
    ))
    [
      [
        "tpm2-device=auto"
        "tpm2-measure-pcr=yes"
      ]
    ]
  )
  (test "disk: without LUKS, BTRFS at once" (luks { disk.encryption.enable = false; }).type "btrfs")
  (test "disk: subvolumes, snapshots without setuid and devices"
    (builtins.mapAttrs (_: v: v.mountOptions) (luks { }).content.subvolumes)
    (
      let
        usual = [
          "compress=zstd"
          "noatime"
        ];
      in
      {
        "@home" = usual;
        "@nix" = usual;
        "@root" = usual;
        "@snapshots" = [
          "nosuid"
          "nodev"
          "noexec"
          "noatime"
        ];
      }
    )
  )
  (test "disk: a swap file in its own subvolume"
    (luks {
      disk.swap = {
        enable = true;
        sizeGiB = 8;
      };
    }).content.subvolumes."@swap".swap
    { swapfile.size = "8G"; }
  )
  (test "disk: the root is mounted early" (at [
    "fileSystems"
    "/"
    "neededForBoot"
  ] (plainDisk { })) [ true ])

  # The boot loader.
  (test "boot: Secure Boot needs lanzaboote" (complains "lanzaboote's NixOS module" (
    broken (boot secure { boot = { }; })
  )) true)
  (test "boot: Secure Boot, by lanzaboote alone" [
    (broken (boot secure lanzaboote))
    (at [
      "boot"
      "loader"
      "systemd-boot"
      "enable"
    ] (boot secure lanzaboote))
    (at [
      "boot"
      "lanzaboote"
    ] (boot secure lanzaboote))
  ] [
    [ ]
    [ false ]
    [
      {
        enable = true;
        pkiBundle = "/var/lib/sbctl";
      }
    ]
  ])
  (test "boot: Standard Boot, by systemd-boot alone" [
    (at [
      "boot"
      "loader"
      "systemd-boot"
      "enable"
    ] (boot { } lanzaboote))
    (at [
      "boot"
      "lanzaboote"
    ] (boot { } lanzaboote))
  ] [
    [ true ]
    [ ]
  ])
  (test "boot: the command line cannot be edited" (at [
    "boot"
    "loader"
    "systemd-boot"
    "editor"
  ] (boot { } lanzaboote)) [ false ])

  # Network, SSH, accounts.
  (test "ssh: off unless it is wanted" (at [
    "services"
    "openssh"
  ] (network { })) [ ])
  (test "ssh: keys alone, the admin alone, nothing forwarded"
    (map
      (
        s:
        [
          s.PermitRootLogin
          s.PasswordAuthentication
          s.KbdInteractiveAuthentication
          s.AllowUsers
          s.X11Forwarding
          s.AllowAgentForwarding
        ]
      )
      (
        at [
          "services"
          "openssh"
          "settings"
        ] (network { networking.ssh.enable = true; })
      )
    )
    [
      [
        "no"
        false
        false
        [ "admin" ]
        false
        false
      ]
    ]
  )
  (test "ssh: open to the LAN alone" [
    (firewall "allowedTCPPorts" {
      networking.ssh.enable = true;
      networking.lan.subnets = [
        "192.168.1.0/24"
        "fd00::/64"
      ];
    })
    (firewall "extraInputRules" {
      networking.ssh.enable = true;
      networking.lan.subnets = [
        "192.168.1.0/24"
        "fd00::/64"
      ];
    })
  ] [
    [ [ ] ]
    [
      "ip saddr { 192.168.1.0/24 } tcp dport { 22 } accept\nip6 saddr { fd00::/64 } tcp dport { 22 } accept\n"
    ]
  ])
  (test "ssh: open to all when that is said" (firewall "allowedTCPPorts" {
    networking.ssh = {
      enable = true;
      public = true;
    };
  }) [ [ 22 ] ])
  (test "firewall: no LAN, no open port" [
    (firewall "enable" { networking.ssh.enable = true; })
    (firewall "extraInputRules" { networking.ssh.enable = true; })
  ] [
    [ true ]
    [ "" ]
  ])
  (test "admin: passwords come from the secrets alone" [
    (admin [
      "users"
      "mutableUsers"
    ])
    (admin [
      "users"
      "users"
      "alice"
      "hashedPasswordFile"
    ])
    (admin [
      "users"
      "users"
      "root"
      "hashedPassword"
    ])
  ] [
    [ false ]
    [ "/var/lib/nixos-go/secrets/hashed-password" ]
    [ "!" ]
  ])

  # The flake of an owner.
  (test "flake: three configurations for each host" (attrNames flake) [
    "A-Disk-Operation"
    "A-Secure-Boot"
    "A-Standard-Boot"
    "b-2-Disk-Operation"
    "b-2-Secure-Boot"
    "b-2-Standard-Boot"
  ])
  (test "flake: the target decides how it boots"
    (map
      (
        target:
        at [
          "settings"
          "boot"
          "method"
        ] (common flake.${target})
      )
      [
        "A-Standard-Boot"
        "A-Secure-Boot"
      ]
    )
    [
      [ "Standard-Boot" ]
      [ "Secure-Boot" ]
    ]
  )
  (test "flake: the owner's modules are the machine's" (named flake.A-Standard-Boot) [
    "default"
    "mine"
  ])
  (test "flake: settings and disk alone for disko" (named flake.A-Disk-Operation) [
    "settings"
    "disk"
    "disko"
  ])
  (test "flake: secrets/ inside it is refused" (complains "the flake has a folder secrets/" (
    broken (common (ownersFlake ../fixtures/leaky).A-Standard-Boot)
  )) true)
  (test "flake: without secrets/ it is not" (broken (common flake.A-Standard-Boot)) [ ])
]
