# What any NixOS workstation must not lose, each with its reason. Machines and
# modules add to it: settings.disk.immutability.persist.paths.
{ config, lib, ... }:
let
  cfg = config.settings.disk.immutability.persist;

  system = [
    # The machine's identity: journals, DHCP leases and D-Bus refer to it.
    "/etc/machine-id"
    # Who connected before would be warned of an attack. Not all of /etc/ssh:
    # an authorized_keys file that somebody left there must not survive.
    "/etc/ssh/ssh_host_*"
    # This configuration.
    "/etc/nixos"
    # Known networks with their passwords; leases, and the key of stable
    # private IPv6 addresses.
    "/etc/NetworkManager/system-connections"
    "/var/lib/NetworkManager"
    # Which user and group has which number. Without it files could change
    # hands after a service was removed and another added.
    "/var/lib/nixos"
    # Secrets of the machine: the hash of the admin's password.
    "/var/lib/nixos-go"
    # The keys that sign what boots.
    config.settings.boot.pkiBundle
    # Crash dumps; when each timer last ran; entropy for the next boot; screen
    # brightness; which radios are off; the last known time, so that the clock
    # never runs backwards; the key that encrypts credentials of services; who
    # may run services without being logged in.
    "/var/lib/systemd/coredump"
    "/var/lib/systemd/timers"
    "/var/lib/systemd/random-seed"
    "/var/lib/systemd/backlight"
    "/var/lib/systemd/rfkill"
    "/var/lib/systemd/timesync"
    "/var/lib/systemd/credential.secret"
    "/var/lib/systemd/linger"
    # Logs, the journal among them: what happened before the reset.
    "/var/log"
    # Paired devices.
    "/var/lib/bluetooth"
    # History and metadata of firmware updates.
    "/var/lib/fwupd"
    # Virtual machines, containers, printers.
    "/var/lib/libvirt"
    "/var/lib/containers"
    "/var/lib/cups"
    # Pictures and last sessions of the accounts; who logged in last.
    "/var/lib/AccountsService"
    "/var/lib/sddm/state.conf"
    # Charge history of batteries; the chosen power profile; colour profiles.
    "/var/lib/upower"
    "/var/lib/power-profiles-daemon"
    "/var/lib/colord"
    # sudo's lecture was read.
    "/var/db/sudo/lectured"
  ];

  # Below each home.
  user = [
    # The folders for one's own files (XDG user directories).
    "Desktop"
    "Documents"
    "Downloads"
    "Music"
    "Pictures"
    "Public"
    "Templates"
    "Videos"
    # What was thrown away can be taken back.
    ".local/share/Trash"
    # Shell history.
    ".bash_history"
    ".zsh_history"
    ".local/share/fish/fish_history"
    # Keys of one's own, and of the hosts one has seen; not authorized_keys,
    # which the configuration declares.
    ".ssh/id_*"
    ".ssh/known_hosts*"
    ".gnupg"
    # Which .envrc files were allowed.
    ".local/share/direnv"
    # Roots of the garbage collector and profiles. Without home-manager's own
    # state it does not know the links it made, and leaves orphans.
    ".local/state/home-manager"
    ".local/state/nix"
    ".local/share/nix"
    # Rootless containers.
    ".local/share/containers"
    # Browsers and mail: profiles, passwords, sessions.
    ".mozilla"
    ".config/mozilla"
    ".config/chromium"
    ".config/google-chrome"
    ".config/BraveSoftware"
    ".thunderbird"
    # Editors: undo history, marks, plug-in state.
    ".local/share/nvim"
    ".local/state/nvim"
    ".viminfo"
    # Wallets.
    ".local/share/kwalletd"
    ".local/share/keyrings"
    # Plasma: panels, screens, shortcuts, activities, what was opened when.
    ".config/kde*"
    ".config/plasma*"
    ".config/kwin*"
    ".config/kglobalshortcutsrc"
    ".config/kactivitymanagerd*"
    ".config/kscreenlockerrc"
    ".config/kwalletrc"
    ".config/powerdevilrc"
    ".config/powermanagementprofilesrc"
    ".config/dolphinrc"
    ".config/katerc"
    ".config/konsolerc"
    ".local/share/dolphin"
    ".local/share/kactivitymanagerd"
    ".local/share/konsole"
    ".local/share/kscreen"
    ".local/share/plasma*"
    # GNOME: its settings, screens, accounts.
    ".config/dconf"
    ".config/monitors.xml"
    ".config/goa-1.0"
  ];

  # Caches inside profiles: large, and made again by themselves.
  caches = [
    ".config/google-chrome/*/Cache"
    ".config/google-chrome/*/Code Cache"
    ".config/google-chrome/*/GPUCache"
    ".config/chromium/*/Cache"
    ".config/chromium/*/Code Cache"
    ".config/chromium/*/GPUCache"
    ".config/BraveSoftware/*/*/Cache"
    ".config/BraveSoftware/*/*/Code Cache"
    ".config/BraveSoftware/*/*/GPUCache"
  ];

  homes = map (path: "/home/*/${path}");
in
{
  config.settings.disk.immutability.persist = lib.mkIf cfg.base {
    paths = system ++ homes user;
    exclude = homes caches;
  };
}
