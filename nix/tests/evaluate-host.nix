# A host file, evaluated by the stand-in: its settings, its plan, what is wrong.
{ name, path }:
let
  modules = import ./modules.nix;
  functions = import ../lib;
  config = modules.evaluate [
    path
    { settings.networking.hostName = modules.lib.mkDefault name; }
  ];
in
{
  inherit (config) settings warnings;
  inherit (functions.plan.fromDisk config.settings.disk) plan;
  broken = map (a: a.message) (builtins.filter (a: !a.assertion) config.assertions);
}
