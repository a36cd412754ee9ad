# The desktop: Plasma, GNOME or Hyprland, who logs in, when the screen locks.
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
  cfg = settings.desktop;
  is = name: cfg.environment == name;

  plasma = is "plasma-wayland" || is "plasma-x11";
  gnome = is "gnome-wayland";
  gnomeX11 = is "gnome-x11";
  hyprland = is "hyprland";
  x11 = is "plasma-x11" || gnomeX11;

  # As text, without the zeros that Nix prints after a fraction.
  scale = builtins.toJSON cfg.scaling;
  scaled = cfg.scaling != 1;

  lockSeconds = admin.autoLock.minutes * 60;
  suspendMinutes = settings.sleep.autoSuspendMinutes;
  suspends = settings.sleep.suspend && suspendMinutes != null;
  suspendSeconds = if suspends then suspendMinutes * 60 else 0;

  session =
    {
      plasma-wayland = "plasma";
      plasma-x11 = "plasmax11";
      gnome-wayland = "gnome";
      gnome-x11 = "gnome-flashback-metacity";
      hyprland = "hyprland";
    }
    .${cfg.environment};

  # Plasma's X11 session goes away with one of the next releases.
  plasmaSessions = pkgs.kdePackages.plasma-workspace.providedSessions or [ ];
  hasPlasmaX11 = lib.elem "plasmax11" plasmaSessions;
  hasFlashback = (options.services.desktopManager.gnome or { }) ? flashback;
  hasSession = (is "plasma-x11" -> hasPlasmaX11) && (gnomeX11 -> hasFlashback);
in
{
  imports = [ ../settings.nix ];

  config = lib.mkMerge [
    (lib.mkIf (!is "none") {
      assertions = [
        {
          assertion = hasSession;
          message = "nixos-go: this release of NixOS has no X11 session for ${cfg.environment} any more: take the Wayland one.";
        }
      ];

      hardware.graphics.enable = lib.mkDefault true;

      services.displayManager = {
        defaultSession = lib.mkIf hasSession session;
        autoLogin = lib.mkIf admin.autoLogin {
          enable = true;
          user = admin.name;
        };
      };
    })

    (lib.mkIf x11 {
      services.xserver = {
        enable = true;
        dpi = lib.mkIf scaled (lib.mkDefault (builtins.floor (96 * cfg.scaling + 0.5)));
      };
    })

    (lib.mkIf (plasma || hyprland) {
      services.displayManager.sddm = {
        enable = true;
        wayland.enable = !x11;
        settings = lib.mkIf scaled {
          General.GreeterEnvironment = lib.concatStringsSep "," (
            # Replaces what NixOS sets for the greeter under KWin.
            lib.optional (
              config.services.displayManager.sddm.wayland.compositor == "kwin"
            ) "QT_WAYLAND_SHELL_INTEGRATION=layer-shell"
            ++ [
              "QT_SCREEN_SCALE_FACTORS=${scale}"
              "QT_FONT_DPI=96"
            ]
          );
        };
      };
    })

    (lib.mkIf plasma {
      services.desktopManager.plasma6.enable = true;

      # Logging in opens KWallet, unless that is not wanted.
      security.pam.services.login.kwallet.enable = lib.mkIf (!admin.wallet) (lib.mkForce false);

      # Defaults for every account; a user's own settings go before them.
      environment.etc = {
        "xdg/kscreenlockerrc".text = ''
          [Daemon]
          Autolock=${lib.boolToString admin.autoLock.enable}
          Timeout=${toString admin.autoLock.minutes}
          LockOnResume=${lib.boolToString admin.autoLock.enable}
        '';
        "xdg/powerdevilrc".text = ''
          [AC][SuspendAndShutdown]
          AutoSuspendAction=${if suspends then "1" else "0"}
          AutoSuspendIdleTimeoutSec=${toString suspendSeconds}
        '';
      };
    })

    (lib.mkIf (gnome || gnomeX11) {
      # Logging in opens the keyring, unless that is not wanted.
      services.gnome.gnome-keyring.enable = lib.mkIf (!admin.wallet) (lib.mkForce false);

      # Defaults for every account; a user's own settings go before them.
      programs.dconf.profiles.user.databases = [
        {
          settings = {
            "org/gnome/desktop/screensaver" = {
              lock-enabled = admin.autoLock.enable;
              lock-delay = lib.gvariant.mkUint32 0;
            };
            "org/gnome/desktop/session".idle-delay = lib.gvariant.mkUint32 (
              if admin.autoLock.enable then lockSeconds else 0
            );
            "org/gnome/settings-daemon/plugins/power" = {
              sleep-inactive-ac-type = if suspends then "suspend" else "nothing";
              sleep-inactive-ac-timeout = lib.gvariant.mkInt32 suspendSeconds;
            };
            "org/gnome/desktop/interface" = {
              text-scaling-factor = lib.gvariant.mkDouble (cfg.scaling * 1.0);
            };
          };
        }
      ];
    })

    (lib.mkIf gnome {
      services.displayManager.gdm.enable = true;
      services.desktopManager.gnome.enable = true;
    })

    # GNOME Shell and GDM have given X11 up; Flashback with Metacity has not,
    # and LightDM starts it.
    (lib.mkIf gnomeX11 { services.xserver.displayManager.lightdm.enable = true; })

    (lib.optionalAttrs hasFlashback {
      services.desktopManager.gnome.flashback.enableMetacity = lib.mkIf gnomeX11 true;
    })

    (lib.mkIf hyprland {
      programs.hyprland.enable = true;
      programs.hyprlock.enable = true;
      services.hypridle.enable = admin.autoLock.enable;
      services.gnome.gnome-keyring.enable = admin.wallet;

      environment.systemPackages = [
        pkgs.kitty
        pkgs.mako
        pkgs.waybar
        pkgs.wofi
      ];
    })

    (lib.optionalAttrs (options ? home-manager) {
      home-manager.users = lib.mkIf (hyprland && admin.homeManager) {
        ${admin.name}.xdg.configFile = {
          "hypr/hyprland.conf".text = lib.mkDefault ''
            monitor = , preferred, auto, ${scale}
            exec-once = waybar
            exec-once = mako
            bind = SUPER, Return, exec, kitty
            bind = SUPER, D, exec, wofi --show drun
            bind = SUPER, L, exec, hyprlock
            bind = SUPER, Q, killactive
            bind = SUPER SHIFT, E, exit
          '';
          "hypr/hyprlock.conf".text = lib.mkDefault ''
            background {
              color = rgb(1d2021)
            }
            input-field {
              size = 300, 50
            }
          '';
          "hypr/hypridle.conf".text = lib.mkDefault (
            ''
              general {
                lock_cmd = pidof hyprlock || hyprlock
                before_sleep_cmd = loginctl lock-session
              }
              listener {
                timeout = ${toString lockSeconds}
                on-timeout = loginctl lock-session
              }
            ''
            + lib.optionalString suspends ''
              listener {
                timeout = ${toString suspendSeconds}
                on-timeout = systemctl suspend
              }
            ''
          );
        };
      };
    })
  ];
}
