# nix/lib/hosts.nix, and the hosts and the template of this repository.
{
  test,
  fails,
  functions,
  ...
}:
let
  inherit (builtins) attrNames concatMap map;

  hosts = import ../hosts.nix;
  template = import ../evaluate-host.nix {
    name = "my-machine";
    path = ../../../templates/default/hosts/x86_64/my-machine.nix;
  };
in
[
  (test "hosts: found"
    (map (h: "${h.hostPath} ${h.name} ${h.system}") (functions.hosts.discover ../fixtures/hosts))
    [
      "hosts/aarch64/b-2.nix b-2 aarch64-linux"
      "hosts/x86_64/A.nix A x86_64-linux"
    ]
  )
  (test "hosts: one name twice" (fails (functions.hosts.discover ../fixtures/twice)) true)
  (test "hosts: a bad name" (fails (functions.hosts.discover ../fixtures/name)) true)
  (test "hosts: three configurations each"
    (attrNames (
      functions.hosts.configurations (functions.hosts.discover ../fixtures/hosts) (_: _: null)
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

  (test "our hosts" (attrNames hosts) [
    "FRACTAL-NORTH"
    "Parallels"
    "UTM"
    "VM-TEST"
    "VM-TEST-ARM"
  ])
  (test "template: nothing wrong" template.broken [ ])
  (test "template: the disk is the owner's to name" template.settings.disk.device "")
]
++ concatMap (
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
) (attrNames hosts)
