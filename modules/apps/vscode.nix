# Visual Studio Code (unfree), as a Wayland program where Wayland is.
{
  config,
  lib,
  options,
  pkgs,
  ...
}:
let
  inherit (config) settings;
  admin = settings.user.admin;
  x11 = lib.hasSuffix "-x11" settings.desktop.environment;
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf settings.apps.vscode (
    lib.mkMerge [
      {
        environment.sessionVariables = lib.mkIf (!x11) { NIXOS_OZONE_WL = "1"; };
        environment.systemPackages = lib.mkIf (
          !(options ? home-manager && admin.homeManager)
        ) [ pkgs.vscode ];
      }

      (lib.optionalAttrs (options ? home-manager) {
        home-manager.users = lib.mkIf admin.homeManager {
          ${admin.name}.programs.vscode.enable = true;
        };
      })
    ]
  );
}
