# The Mullvad VPN, with its window where there is a desktop.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  hasDesktop = config.settings.desktop.environment != "none";
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf config.settings.apps.mullvad {
    services.mullvad-vpn = {
      enable = true;
    }
    # The window was part of the package up to NixOS 26.05.
    // (
      if options.services.mullvad-vpn ? gui then
        { gui.enable = hasDesktop; }
      else
        { package = lib.mkIf hasDesktop pkgs.mullvad-vpn; }
    );
  };
}
