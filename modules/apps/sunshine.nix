# Sunshine streams the desktop, to the LAN alone.
{ config, lib, ... }:
let
  port = 47989;
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.apps.sunshine {
    services.sunshine = {
      enable = true;
      autoStart = true;
      # To capture a Wayland screen.
      capSysAdmin = true;
      openFirewall = false;
    };

    # Not the web interface (port + 1), which pairs new clients: it is opened
    # on the machine itself.
    settings.networking.lan = {
      tcpPorts = [
        (port - 5)
        port
        (port + 21)
      ];
      udpPorts = [
        (port + 9)
        (port + 10)
        (port + 11)
        (port + 13)
        (port + 21)
      ];
    };
  };
}
