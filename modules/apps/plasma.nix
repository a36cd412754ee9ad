# The admin's Plasma, by plasma-manager where home-manager has it.
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
  desktop = settings.desktop;
  isPlasma = lib.hasPrefix "plasma-" desktop.environment;
  minutes = settings.sleep.autoSuspendMinutes;
  suspends = settings.sleep.suspend && minutes != null;
  wayland = desktop.environment == "plasma-wayland";
  scaled = desktop.scaling != 1;
  scale = builtins.toJSON desktop.scaling;

  plasma = {
    enable = true;

    kscreenlocker = {
      autoLock = admin.autoLock.enable;
      lockOnResume = admin.autoLock.enable;
      timeout = admin.autoLock.minutes;
    };

    powerdevil.AC.autoSuspend = {
      action = if suspends then "sleep" else "nothing";
    }
    // lib.optionalAttrs suspends { idleTimeout = minutes * 60; };

    configFile = lib.mkIf scaled {
      # X11 sessions, and X11 programs under Wayland.
      kdeglobals.KScreen.ScaleFactor = desktop.scaling;
      kwinrc.Xwayland.Scale = desktop.scaling;
    };

    # Wayland keeps a scale for each screen: set once, then the owner's.
    startup.startupScript = lib.mkIf (wayland && scaled) {
      nixos-go-scaling.text = ''
        ${pkgs.kdePackages.libkscreen}/bin/kscreen-doctor --json |
          ${pkgs.jq}/bin/jq --raw-output '.outputs[] | select(.enabled) | .name' |
          while read -r output; do
            ${pkgs.kdePackages.libkscreen}/bin/kscreen-doctor "output.$output.scale.${scale}"
          done
      '';
    };
  };
in
{
  imports = [ ../settings.nix ];

  config = lib.mkIf (settings.apps.plasma && isPlasma) (
    lib.optionalAttrs (options ? home-manager) {
      home-manager.users = lib.mkIf admin.homeManager {
        ${admin.name} =
          { options, ... }:
          {
            config = lib.optionalAttrs (options.programs ? plasma) {
              programs.plasma = plasma;
            };
          };
      };
    }
  );
}
