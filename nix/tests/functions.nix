# The tests of nix/lib and of the settings, in builtins alone: the list of
# their names when all hold, an error that shows what differs otherwise.
let
  inherit (builtins)
    concatMap
    concatStringsSep
    filter
    length
    map
    mapAttrs
    toJSON
    tryEval
    ;
  functions = import ../lib;
  modules = import ./modules.nix;

  # Attribute sets into each other; the right one wins.
  merge =
    a: b:
    a // mapAttrs (name: v: if builtins.isAttrs v && a ? ${name} then merge a.${name} v else v) b;

  # What the cases are written with.
  tools = rec {
    inherit functions;
    test = name: got: want: { inherit name got want; };

    # Does the evaluation fail?
    fails = value: !(tryEval (builtins.deepSeq value true)).success;

    # A machine with these settings alone; one that also resets.
    machine = settings: modules.evaluate [ { inherit settings; } ];
    withReset = settings: machine (merge { disk.immutability.enable = true; } settings);

    broken = config: map (a: a.message) (filter (a: !a.assertion) config.assertions);
    planOf = config: functions.plan.fromDisk config.settings.disk;
  };

  every = concatMap (file: import file tools) [
    ./cases/paths.nix
    ./cases/split.nix
    ./cases/plan.nix
    ./cases/checks.nix
    ./cases/hosts.nix
    ./cases/units.nix
    ./cases/modules.nix
    ./cases/flake.nix
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
