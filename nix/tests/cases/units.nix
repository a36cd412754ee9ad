# nix/lib/units.nix: the text of the units, and the order that safety rests on.
{ test, ... }:
let
  inherit (builtins)
    all
    concatMap
    elem
    filter
    head
    isString
    match
    readFile
    split
    ;

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

  units = import ../units.nix;
  order = [
    "dev-mapper-root.device"
    "systemd-hibernate-resume.service"
    "local-fs-pre.target"
  ];
in
[
  (test "unit: reset, as a whole" units.immutability (readFile ../golden/immutability.service))
  (test "unit: cleanup, as a whole" units.immutability-cleanup (
    readFile ../golden/immutability-cleanup.service
  ))
  (test "unit: timer of the cleanup, as a whole" units.immutability-cleanup-timer (
    readFile ../golden/immutability-cleanup.timer
  ))
  (test "unit: notice, as a whole" units.immutability-notice (
    readFile ../golden/immutability-notice.service
  ))
  (test "unit: after device and hibernation" (all (
    u: elem u (directive "After" units.immutability)
  ) order) true)
  (test "unit: before the root is mounted" (elem "sysroot.mount" (
    directive "Before" units.immutability
  )) true)
  (test "unit: needs the device" (directive "Requires" units.immutability) [
    "dev-mapper-root.device"
  ])
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
]
