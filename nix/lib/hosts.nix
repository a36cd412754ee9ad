# Finds the machines of a flake: one file a host, hosts/<arch>/<NAME>.nix.
# Folders below, and files of another ending, are for what hosts share.
let
  inherit (builtins)
    attrNames
    concatLists
    concatMap
    filter
    head
    listToAttrs
    map
    match
    readDir
    ;

  targets = [
    "Standard-Boot"
    "Secure-Boot"
    "Disk-Operation"
  ];

  folders = dir: filter (name: (readDir dir).${name} == "directory") (attrNames (readDir dir));

  hostsOf =
    dir: arch:
    concatMap (
      file:
      let
        parts = match "(.*)[.]nix" file;
        name = head parts;
      in
      if parts == null || (readDir (dir + "/${arch}")).${file} == "directory" then
        [ ]
      else if match "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?" name == null then
        throw "hosts/${arch}/${file}: \"${name}\" is no host name (letters, digits and hyphens)"
      else
        [
          {
            inherit name arch;
            system = "${arch}-linux";
            path = dir + "/${arch}/${file}";
            hostPath = "hosts/${arch}/${file}";
          }
        ]
    ) (attrNames (readDir (dir + "/${arch}")));

  unique =
    hosts:
    map (
      host:
      let
        same = filter (other: other.name == host.name) hosts;
      in
      if same == [ host ] then
        host
      else
        throw "two hosts have the name ${host.name}: ${
          builtins.concatStringsSep " and " (map (other: other.hostPath) same)
        }"
    ) hosts;
in
{
  inherit targets;

  # dir -> [ { name, arch, system, path, hostPath } ]
  discover = dir: unique (concatLists (map (hostsOf dir) (folders dir)));

  # hosts, f -> { <NAME>-<target> = f host target; }
  configurations =
    hosts: f:
    listToAttrs (
      concatMap (
        host:
        map (target: {
          name = "${host.name}-${target}";
          value = f host target;
        }) targets
      ) hosts
    );
}
