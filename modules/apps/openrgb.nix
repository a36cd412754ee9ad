# OpenRGB, as a service: lights keep their colours without a session.
{ config, lib, ... }:
let
  cpu = config.settings.hardware.cpu;
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.apps.openrgb {
    services.hardware.openrgb = {
      enable = true;
      motherboard = lib.mkIf (cpu != null) cpu;
    };
  };
}
