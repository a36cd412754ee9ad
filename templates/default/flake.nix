{
  description = "My machines";

  # Where you got nixos-go from: the same address as after `nix flake init -t`.
  inputs.nixos-go.url = "git+file:///path/to/nixos-go";

  outputs =
    { self, nixos-go, ... }:
    {
      # Three configurations for each file below hosts/.
      nixosConfigurations = nixos-go.lib.machines {
        inherit self;
        modules = [ ./configuration.nix ];
      };

      # The installer runs disko from here, at the version that flake.lock has.
      inherit (nixos-go) packages;
    };
}
