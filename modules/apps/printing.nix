# CUPS, with printers found on the network.
{ config, lib, ... }:
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.apps.printing {
    services.printing.enable = true;
    services.avahi = {
      enable = true;
      nssmdns4 = true;
    };
  };
}
