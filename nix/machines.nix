# The NixOS configurations of a flake with a folder of hosts: three for each
# host file, named <HOST>-<target>.
#
#   Standard-Boot   the machine, booted by systemd-boot
#   Secure-Boot     the machine, its boot images signed by lanzaboote
#   Disk-Operation  settings, host and disk alone: what disko needs
{
  inputs, # of nixos-go
  nixosModules, # of nixos-go
}:
{
  self, # the flake that the hosts are in
  hosts ? "${self}/hosts",
  modules ? [ ], # for the machine itself, beside the host file
}:
let
  inherit (inputs.nixpkgs) lib;
  found = import ./lib/hosts.nix;

  common =
    host: method:
    { config, ... }:
    {
      imports = [ host.path ];

      nixpkgs.hostPlatform = lib.mkDefault host.system;

      settings = {
        networking.hostName = lib.mkDefault host.name;
        # The target decides, not the host.
        boot.method = lib.mkForce method;
        disk.immutability.revision = lib.mkDefault (self.lastModified or 0);
      };

      system.configurationRevision = lib.mkIf (self ? rev || self ? dirtyRev) (
        self.rev or self.dirtyRev
      );

      assertions = [
        {
          assertion = !builtins.pathExists "${self}/secrets";
          message = "nixos-go: the flake has a folder secrets/: git and the Nix store would show it to everybody. Secrets belong in ${config.settings.secrets.path}.";
        }
      ];
    };

  machine =
    host: method:
    [
      nixosModules.default
      (common host method)
    ]
    ++ modules;

  modulesOf = host: {
    Standard-Boot = machine host "Standard-Boot";
    Secure-Boot = machine host "Secure-Boot";
    Disk-Operation = [
      nixosModules.settings
      nixosModules.disk
      inputs.disko.nixosModules.disko
      (common host "Standard-Boot")
      (
        { config, ... }:
        {
          # So that it is a whole configuration, which can be checked.
          boot.loader.systemd-boot.enable = true;
          boot.initrd.systemd.enable = true;
          networking.hostName = config.settings.networking.hostName;
          system.stateVersion = lib.mkIf (
            config.settings.stateVersion != null
          ) config.settings.stateVersion;
        }
      )
    ];
  };
in
found.configurations (found.discover hosts) (
  host: target: lib.nixosSystem { modules = (modulesOf host).${target}; }
)
