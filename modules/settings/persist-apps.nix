# What the applications and devices that a machine has must not lose.
{ config, lib, ... }:
let
  inherit (config.settings)
    apps
    disk
    hardware
    sound
    ;
in
{
  config.settings.disk.immutability.persist = lib.mkIf disk.immutability.persist.base {
    paths =
      lib.optionals apps.onePassword [
        # The accounts on this machine.
        "/home/*/.config/1Password"
        "/home/*/.config/op"
      ]
      ++ lib.optionals apps.vscode [
        # Settings, open windows, extensions.
        "/home/*/.config/Code"
        "/home/*/.vscode"
      ]
      ++ lib.optionals apps.sunshine [
        # Paired clients, credentials of the web interface.
        "/home/*/.config/sunshine"
      ]
      ++ lib.optionals apps.mullvad [
        # The device's key and account; the list of relays.
        "/etc/mullvad-vpn"
        "/var/cache/mullvad-vpn"
        "/home/*/.config/Mullvad VPN"
      ]
      ++ lib.optionals apps.openrgb [
        # Profiles and sizes of the light strips.
        "/var/lib/OpenRGB"
        "/home/*/.config/OpenRGB"
      ]
      ++ lib.optionals apps.virt.enable [
        # Machines of the users' own sessions; the authority that signs
        # software TPMs. (The system's machines are in the base.)
        "/home/*/.config/libvirt"
        "/home/*/.local/share/libvirt"
        "/var/lib/swtpm-localca"
      ]
      ++ lib.optionals sound.enable [
        # Volumes, the chosen speakers, the cookie that lets clients in.
        "/home/*/.local/state/wireplumber"
        "/home/*/.config/pulse"
      ]
      ++ lib.optionals hardware.thunderbolt [
        # Devices that were allowed.
        "/var/lib/boltd"
      ];

    exclude = lib.optionals apps.vscode [
      "/home/*/.config/Code/Cache"
      "/home/*/.config/Code/CachedData"
      "/home/*/.config/Code/Code Cache"
      "/home/*/.config/Code/GPUCache"
      "/home/*/.config/Code/logs"
    ];
  };
}
