# The tests of nix/lib and of the settings, in builtins alone: the list of
# their names when all hold, an error that shows what differs otherwise.
let
  inherit (builtins)
    all
    any
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    head
    isString
    length
    listToAttrs
    map
    mapAttrs
    match
    readFile
    split
    toJSON
    tryEval
    ;
  functions = import ../lib;
  inherit (functions) paths;
  modules = import ./modules.nix;

  test = name: got: want: { inherit name got want; };

  # Does the evaluation fail?
  fails = value: !(tryEval (builtins.deepSeq value true)).success;

  matching = map (
    t: test "matchComponent ${toJSON t.pattern} ${toJSON t.name}" (paths.matchComponent t.pattern t.name) t.want
  ) (
    let
      yes = pattern: name: { inherit pattern name; want = true; };
      no = pattern: name: { inherit pattern name; want = false; };
    in
    [
      (yes "a" "a")
      (no "a" "b")
      (no "a" "aa")
      (yes "*" "a")
      (yes "*" "")
      (yes "*" "a\nb")
      (yes "kde*" "kde")
      (yes "kde*" "kdeglobals")
      (no "kde*" "akde")
      (yes "*rc" "plasmarc")
      (no "*rc" "rcs")
      (no "a*a" "a")
      (yes "a*a" "aa")
      (yes "a*b*c" "axxbyyc")
      (no "a*b*c" "axxc")
      (yes "*b*b*" "abb")
      (no "*b*b*" "ab")
      (yes "a.b" "a.b")
      (no "a.b" "axb")
      (yes "[x]*" "[x]y")
    ]
  );

  normal = [
    (test "components" (paths.components "//a///b/") [
      "a"
      "b"
    ])
    (test "components of /" (paths.components "/") [ ])
    (test "squeezeStars" (paths.squeezeStars "a***b**") "a*b*")
    (test "problem: empty" (paths.problem "") "the path is empty")
    (test "problem: relative" (paths.problem "a/b") "the path does not begin with a slash")
    (test "problem: dots" (paths.problem "/a/../b") ''the path contains a "." or ".." component'')
    (test "problem: dot" (paths.problem "/a/.") ''the path contains a "." or ".." component'')
    (test "problem: none" (paths.problem "/a/..b/.c") null)
  ];

  volume = name: mountPoint: reset: { inherit name mountPoint reset; };
  root = volume "@root" "/" true;
  home = volume "@home" "/home" true;
  nix = volume "@nix" "/nix" false;
  alice = volume "@alice" "/home/alice" true;

  splitting =
    let
      short =
        volumes: keep: exclude:
        let
          shared = functions.split volumes keep exclude;
        in
        if shared.errors != [ ] then
          shared.errors
        else
          {
            keep = listToAttrs (
              map (v: {
                inherit (v) name;
                value = v.keep;
              }) shared.volumes
            );
            exclude = concatMap (v: map (rule: "${v.name}:${rule}") v.exclude) shared.volumes;
            inherit (shared) withoutEffect;
          };
    in
    [
      (test "split: the longest mount point first"
        (short
          [
            root
            home
            nix
          ]
          [
            "/etc/ssh/"
            "//etc//ssh"
            "/home/alice/Documents"
            "/nix/var/nix"
          ]
          [ "/home/alice/Documents/tmp" ]
        )
        {
          keep = {
            "@root" = [ "/etc/ssh" ];
            "@home" = [ "/alice/Documents" ];
          };
          exclude = [ "@home:/alice/Documents/tmp" ];
          withoutEffect = [ "/nix/var/nix" ];
        }
      )
      (test "split: * reaches into every volume it can"
        (short
          [
            root
            home
          ]
          [
            "/*/alice"
            "/home/*/.ssh"
          ]
          [ ]
        )
        {
          keep = {
            "@root" = [ "/*/alice" ];
            "@home" = [
              "/*/.ssh"
              "/alice"
            ];
          };
          exclude = [ ];
          withoutEffect = [ ];
        }
      )
      (test "split: * into a volume below"
        (short
          [
            root
            home
            alice
          ]
          [ "/home/*/Documents" ]
          [ ]
        )
        {
          keep = {
            "@root" = [ ];
            "@home" = [ "/*/Documents" ];
            "@alice" = [ "/Documents" ];
          };
          exclude = [ ];
          withoutEffect = [ ];
        }
      )
      (test "split: a literal way into a deeper volume is its own alone"
        (short
          [
            root
            home
            alice
          ]
          [ "/home/alice/Documents" ]
          [ ]
        )
        {
          keep = {
            "@root" = [ ];
            "@home" = [ ];
            "@alice" = [ "/Documents" ];
          };
          exclude = [ ];
          withoutEffect = [ ];
        }
      )
      (test "split: above another volume"
        (short
          [
            root
            (volume "@log" "/var/log" true)
          ]
          [ "/var" ]
          [ ]
        )
        [
          ''rule "/var": the path is above the mount point of another volume that is reset (volume at "/var/log")''
        ]
      )
      (test "split: above a volume that is never reset"
        (short
          [
            root
            (volume "@log" "/var/log" false)
          ]
          [ "/var" ]
          [ ]
        )
        {
          keep."@root" = [ "/var" ];
          exclude = [ ];
          withoutEffect = [ ];
        }
      )
      (test "split: the mount point itself"
        (short
          [
            root
            home
          ]
          [
            "/home"
            "/"
          ]
          [ ]
        )
        [
          ''rule "/home": the path is a volume's own mount point (volume at "/home")''
          ''rule "/": the path is a volume's own mount point''
        ]
      )
      (test "split: * over a mount point is an error for keep"
        (short
          [
            root
            home
            alice
          ]
          [ "/home/*" ]
          [ ]
        )
        [ ''rule "/home/*": the path is a volume's own mount point (volume at "/home/alice")'' ]
      )
      (test "split: and is shared out for exclude"
        (short
          [
            root
            home
            alice
          ]
          [ ]
          [ "/home/*" ]
        )
        {
          keep = {
            "@root" = [ ];
            "@home" = [ ];
            "@alice" = [ ];
          };
          exclude = [ "@home:/*" ];
          withoutEffect = [ ];
        }
      )
      (test "split: reserved names"
        (short
          [
            root
            home
          ]
          [
            "/home/.immutability-trash/x"
            "/.boot-ready"
          ]
          [ ]
        )
        [
          ''rule "/home/.immutability-trash/x": the name is reserved for the reset itself (volume at "/home")''
          ''rule "/.boot-ready": the name is reserved for the reset itself (volume at "/")''
        ]
      )
      (test "split: a reserved name deeper down is a name like others"
        (short [ root ] [ "/a/.boot-ready" ] [ ]).keep
        { "@root" = [ "/a/.boot-ready" ]; }
      )
      (test "split: one mount point twice"
        (short
          [
            home
            (volume "@other" "/home/" true)
          ]
          [ ]
          [ ]
        )
        [ ''volumes "@home" and "@other" have the same mount point "/home/"'' ]
      )
    ];

  # A machine with the smallest settings, and something more.
  machine = extra: modules.evaluate [ { settings = extra; } ];
  enabled = {
    disk.immutability.enable = true;
  };
  # Attribute sets into each other; nothing here is a list in two of them.
  merge =
    a: b:
    a
    // mapAttrs (name: v: if builtins.isAttrs v && a ? ${name} then merge a.${name} v else v) b;
  withReset = extra: machine (merge enabled extra);
  broken = config: map (a: a.message) (filter (a: !a.assertion) config.assertions);
  complains = text: config: any (message: match ".*${text}.*" message != null) (broken config);
  planOf = config: functions.plan.fromDisk config.settings.disk;

  planning = [
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
  ];

  checking =
    let
      refuses = what: text: extra: test "refused: ${what}" (complains text (withReset extra)) true;
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
        secrets.path = ./fixtures;
      }).settings) true)
      (test "an option that does not exist" (fails (machine { dsik = { }; }).settings) true)
      (test "a wrong mode" (fails (withReset { disk.immutability.mode = "on"; }).settings) true)
      (test "a read-only option" (fails (machine {
        disk.byPartlabel.esp = "/dev/x";
      }).settings) true)
    ];

  discovering = [
    (test "hosts: found"
      (map (h: "${h.hostPath} ${h.name} ${h.system}") (functions.hosts.discover ./fixtures/hosts))
      [
        "hosts/aarch64/b-2.nix b-2 aarch64-linux"
        "hosts/x86_64/A.nix A x86_64-linux"
      ]
    )
    (test "hosts: one name twice" (fails (functions.hosts.discover ./fixtures/twice)) true)
    (test "hosts: a bad name" (fails (functions.hosts.discover ./fixtures/name)) true)
    (test "hosts: three configurations each"
      (attrNames (
        functions.hosts.configurations (functions.hosts.discover ./fixtures/hosts) (host: target: null)
      ))
      [
        "A-Disk-Operation"
        "A-Secure-Boot"
        "A-Standard-Boot"
        "b-2-Disk-Operation"
        "b-2-Secure-Boot"
        "b-2-Standard-Boot"
      ]
    )
  ];

  # The words of all lines KEY=… in the text of a unit.
  directive =
    key: text:
    concatMap (
      line:
      let
        value = match "${key}=(.*)" line;
      in
      if value == null then [ ] else filter (w: isString w && w != "") (split " " (head value))
    ) (filter isString (split "\n" text));

  units = import ./units.nix;
  order = [
    "dev-mapper-root.device"
    "systemd-hibernate-resume.service"
    "local-fs-pre.target"
  ];
  rendering = [
    (test "unit: reset, as a whole" units.immutability (readFile ./golden/immutability.service))
    (test "unit: cleanup, as a whole" units.immutability-cleanup (
      readFile ./golden/immutability-cleanup.service
    ))
    (test "unit: after device and hibernation" (all (
      u: elem u (directive "After" units.immutability)
    ) order) true)
    (test "unit: before the root is mounted" (elem "sysroot.mount" (directive "Before" units.immutability)) true)
    (test "unit: needs the device" (directive "Requires" units.immutability) [ "dev-mapper-root.device" ])
    (test "unit: no default dependencies" (directive "DefaultDependencies" units.immutability) [
      "false"
    ])
    (test "unit: never by hand" (directive "RefuseManualStart" units.immutability) [ "true" ])
    (test "unit: only in an initrd" (directive "AssertPathExists" units.immutability) [
      "/etc/initrd-release"
    ])
    (test "unit: wanted, not required, by the boot" (directive "WantedBy" units.immutability) [
      "initrd.target"
    ])
    (test "unit: bounded" (directive "TimeoutStartSec" units.immutability != [ ]) true)
    (test "unit: the cleanup is idle" (directive "IOSchedulingClass" units.immutability-cleanup) [
      "idle"
    ])
  ];

  hosts = import ./hosts.nix;
  ours = concatMap (
    name:
    let
      host = hosts.${name};
    in
    [
      (test "host ${name}: nothing wrong" host.broken [ ])
      (test "host ${name}: no warning" host.warnings [ ])
      (test "host ${name}: a disk to install on" (host.settings.disk.device != "") true)
      (test "host ${name}: resets root and home" (map (v: v.name) host.plan.volumes) [
        "@root"
        "@home"
      ])
    ]
  ) (attrNames hosts);

  template = import ./evaluate-host.nix {
    name = "my-machine";
    path = ../../templates/default/hosts/x86_64/my-machine.nix;
  };
  templates = [ (test "template: nothing wrong" template.broken [ ]) ];

  every = concatLists [
    matching
    normal
    splitting
    planning
    checking
    discovering
    rendering
    ours
    templates
  ];
  wrong = filter (t: t.got != t.want) every;
  show = t: "${t.name}\n   got ${toJSON t.got}\n  want ${toJSON t.want}";
in
if wrong == [ ] then
  map (t: t.name) every
else
  throw "${toString (length wrong)} of ${toString (length every)} tests failed:\n${
    concatStringsSep "\n" (map show wrong)
  }"
