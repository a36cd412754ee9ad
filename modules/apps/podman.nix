# Containers without a daemon; `docker` is podman.
{ config, lib, ... }:
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.apps.podman {
    virtualisation.podman = {
      enable = true;
      dockerCompat = lib.mkDefault true;
      defaultNetwork.settings.dns_enabled = true;
    };
  };
}
