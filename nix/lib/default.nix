# The logic of the configuration that can be wrong, as pure functions: builtins
# alone, no nixpkgs. Tested by nix/tests.
{
  paths = import ./paths.nix;
  split = import ./split.nix;
  plan = import ./plan.nix;
  hosts = import ./hosts.nix;
  units = import ./units.nix;
  checks = import ./checks.nix;
}
