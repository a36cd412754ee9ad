# Path of a JSON file with cases -> what nix/lib/split.nix says to each.
file:
map (c: (import ../lib/split.nix) c.volumes c.keep c.exclude) (
  builtins.fromJSON (builtins.readFile file)
)
