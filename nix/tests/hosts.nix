# The hosts of this repository, by name: see evaluate-host.nix.
builtins.listToAttrs (
  map (host: {
    inherit (host) name;
    value = import ./evaluate-host.nix { inherit (host) name path; };
  }) ((import ../lib).hosts.discover ../../hosts)
)
