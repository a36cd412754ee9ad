package diff

import (
	"strings"

	"nixos-go/pkg/keep"
)

// usual is a path that many NixOS systems have, and what to think of it.
type usual struct {
	rule string
	why  string
}

// usuallyKept are paths whose loss hurts. modules/settings/persist.nix keeps most of
// them on a machine of this toolkit.
var usuallyKept = []usual{
	{"/etc/machine-id", "the machine's identity: journals, DHCP leases and D-Bus refer to it"},
	{"/etc/ssh/ssh_host_*", "the machine's SSH keys: who connected before would be warned of an attack"},
	{"/etc/nixos", "the configuration itself"},
	{"/etc/adjtime", "how the hardware clock drifts"},
	{"/etc/NetworkManager/system-connections", "known networks with their passwords"},
	{"/etc/mullvad-vpn", "the VPN's key of this device"},
	{"/etc/secureboot", "the keys that sign what boots"},
	{"/etc/wireguard", "VPN keys that were made by hand"},
	{"/etc/ipsec.d", "VPN keys that were made by hand"},
	{"/var/cache/mullvad-vpn", "the list of relays"},
	{"/var/db/sudo/lectured", "who has read sudo's lecture"},
	{"/var/lib/AccountsService", "pictures and last sessions of the accounts"},
	{"/var/lib/NetworkManager", "DHCP leases, and the key of stable private IPv6 addresses"},
	{"/var/lib/OpenRGB", "profiles and sizes of the light strips"},
	{"/var/lib/acme", "certificates; their authority limits how often they are made"},
	{"/var/lib/alsa", "the volume of each sound card"},
	{"/var/lib/bluetooth", "paired devices"},
	{"/var/lib/boltd", "Thunderbolt devices that were allowed"},
	{"/var/lib/chrony", "how the clock drifts"},
	{"/var/lib/colord", "colour profiles"},
	{"/var/lib/containers", "containers, their images and volumes"},
	{"/var/lib/cups", "printers that were added by hand"},
	{"/var/lib/docker", "containers, their images and volumes"},
	{"/var/lib/flatpak", "applications that were installed by Flatpak"},
	{"/var/lib/fprint", "fingerprints"},
	{"/var/lib/fwupd", "history and metadata of firmware updates"},
	{"/var/lib/iwd", "known wireless networks with their passwords"},
	{"/var/lib/libvirt", "virtual machines"},
	{"/var/lib/lxd", "containers"},
	{"/var/lib/mysql", "databases"},
	{"/var/lib/nixos", "which user and group has which number: without it files could change hands"},
	{"/var/lib/nixos-go", "the secrets of this toolkit, and what nixos-diff has listed"},
	{"/var/lib/postgresql", "databases"},
	{"/var/lib/power-profiles-daemon", "the chosen power profile"},
	{"/var/lib/sbctl", "the keys that sign what boots"},
	{"/var/lib/sddm/state.conf", "who logged in last"},
	{"/var/lib/swtpm-localca", "the authority that signs the TPMs of virtual machines"},
	{"/var/lib/systemd/backlight", "screen brightness"},
	{"/var/lib/systemd/coredump", "crash dumps"},
	{"/var/lib/systemd/credential.secret", "the key that encrypts credentials of services"},
	{"/var/lib/systemd/linger", "who may run services without being logged in"},
	{"/var/lib/systemd/random-seed", "entropy for the next boot"},
	{"/var/lib/systemd/rfkill", "which radios are off"},
	{"/var/lib/systemd/timers", "when each timer last ran"},
	{"/var/lib/systemd/timesync", "the last known time, so that the clock never runs backwards"},
	{"/var/lib/tailscale", "the identity of this node"},
	{"/var/lib/upower", "charge history of batteries"},
	{"/var/lib/waydroid", "the Android container"},
	{"/var/log", "what happened before the reset, the journal among it"},
	{"/var/spool/cron", "jobs that users have set up"},

	{"/home/*/Desktop", "a folder for one's own files"},
	{"/home/*/Documents", "a folder for one's own files"},
	{"/home/*/Downloads", "a folder for one's own files"},
	{"/home/*/Music", "a folder for one's own files"},
	{"/home/*/Pictures", "a folder for one's own files"},
	{"/home/*/Public", "a folder for one's own files"},
	{"/home/*/Templates", "a folder for one's own files"},
	{"/home/*/Videos", "a folder for one's own files"},
	{"/home/*/.bash_history", "shell history"},
	{"/home/*/.zsh_history", "shell history"},
	{"/home/*/.local/share/fish/fish_history", "shell history"},
	{"/home/*/.ssh/id_*", "one's own SSH keys"},
	{"/home/*/.ssh/known_hosts*", "the SSH keys of hosts that one has seen"},
	{"/home/*/.gnupg", "one's own keys"},
	{"/home/*/.password-store", "passwords"},
	{"/home/*/.mozilla", "browser profiles: passwords, sessions, bookmarks"},
	{"/home/*/.config/mozilla", "browser profiles: passwords, sessions, bookmarks"},
	{"/home/*/.config/chromium", "browser profiles: passwords, sessions, bookmarks"},
	{"/home/*/.config/google-chrome", "browser profiles: passwords, sessions, bookmarks"},
	{"/home/*/.config/BraveSoftware", "browser profiles: passwords, sessions, bookmarks"},
	{"/home/*/.thunderbird", "mail"},
	{"/home/*/.config/1Password", "accounts on this machine"},
	{"/home/*/.config/Code", "settings and open windows of the editor"},
	{"/home/*/.config/dconf", "settings of GNOME applications"},
	{"/home/*/.config/goa-1.0", "accounts of GNOME"},
	{"/home/*/.config/dolphinrc", "settings of the file manager"},
	{"/home/*/.config/kactivitymanagerd*", "activities of Plasma"},
	{"/home/*/.config/katerc", "settings of the editor"},
	{"/home/*/.config/kde*", "settings of Plasma"},
	{"/home/*/.config/kglobalshortcutsrc", "keyboard shortcuts"},
	{"/home/*/.config/konsolerc", "settings of the terminal"},
	{"/home/*/.config/kscreenlockerrc", "settings of the screen lock"},
	{"/home/*/.config/kwalletrc", "settings of the wallet"},
	{"/home/*/.config/kwin*", "settings of Plasma"},
	{"/home/*/.config/libvirt", "virtual machines of one's own"},
	{"/home/*/.config/monitors.xml", "the arrangement of screens"},
	{"/home/*/.config/plasma*", "settings of Plasma"},
	{"/home/*/.config/powerdevilrc", "settings of power management"},
	{"/home/*/.config/powermanagementprofilesrc", "settings of power management"},
	{"/home/*/.config/pulse", "volumes, and the cookie that lets clients in"},
	{"/home/*/.config/sunshine", "paired clients"},
	{"/home/*/.local/share/Trash", "what was thrown away and can be taken back"},
	{"/home/*/.local/share/Steam", "games"},
	{"/home/*/.local/share/containers", "containers of one's own"},
	{"/home/*/.local/share/direnv", "which .envrc files were allowed"},
	{"/home/*/.local/share/dolphin", "how folders are shown"},
	{"/home/*/.local/share/kactivitymanagerd", "what was opened in which activity of Plasma"},
	{"/home/*/.local/share/keyrings", "the wallet"},
	{"/home/*/.local/share/konsole", "profiles of the terminal"},
	{"/home/*/.local/share/kscreen", "the arrangement of screens"},
	{"/home/*/.local/share/kwalletd", "the wallet"},
	{"/home/*/.local/share/libvirt", "virtual machines of one's own"},
	{"/home/*/.local/share/nix", "trusted settings of flakes"},
	{"/home/*/.local/share/nvim", "undo history, marks and plug-ins of the editor"},
	{"/home/*/.local/share/plasma*", "widgets and themes of Plasma"},
	{"/home/*/.local/state/home-manager", "which links home-manager made: without it they are left as orphans"},
	{"/home/*/.local/state/nix", "profiles, and roots of the garbage collector"},
	{"/home/*/.local/state/nvim", "undo history and marks of the editor"},
	{"/home/*/.local/state/wireplumber", "volumes and the chosen speakers"},
	{"/home/*/.var/app", "data of Flatpak applications"},
	{"/home/*/.viminfo", "undo history and marks of the editor"},
	{"/home/*/.vscode", "extensions of the editor"},
}

// usuallyLost are paths that are made anew by themselves, or belong to the configuration.
var usuallyLost = []usual{
	{"/tmp", "temporary files"},
	{"/var/tmp", "temporary files"},
	{"/var/cache", "caches are made again by themselves"},
	{"/root/.cache", "caches are made again by themselves"},
	{"/home/*/.cache", "caches are made again by themselves"},
	{"/etc/passwd", "NixOS makes it from users.users at each boot"},
	{"/etc/group", "NixOS makes it from users.groups at each boot"},
	{"/etc/shadow", "NixOS makes it from users.users at each boot"},
	{"/etc/passwd-", "a copy of what NixOS makes at each boot"},
	{"/etc/group-", "a copy of what NixOS makes at each boot"},
	{"/etc/shadow-", "a copy of what NixOS makes at each boot"},
	{"/etc/subuid", "NixOS makes it from users.users at each boot"},
	{"/etc/subgid", "NixOS makes it from users.users at each boot"},
	{"/etc/.clean", "NixOS notes in it which files of /etc it made"},
	{"/etc/.updated", "a stamp of systemd"},
	{"/var/.updated", "a stamp of systemd"},
	{"/etc/.pwd.lock", "a lock"},
	{"/etc/resolv.conf", "the network makes it when it comes up"},
	{"/etc/hosts", "networking.hosts declares it"},
	{"/etc/hostname", "networking.hostName declares it"},
	{"/etc/localtime", "time.timeZone declares it"},
	{"/etc/NIXOS", "NixOS makes it at each boot"},
	{"/etc/.java", "preferences that Java makes"},
	{"/bin/sh", "NixOS makes it at each boot"},
	{"/usr/bin/env", "NixOS makes it at each boot"},
	{"/lib64", "NixOS makes it at each boot"},
	{"/root/.nix-defexpr", "nix makes it"},
	{"/root/.nix-profile", "nix makes it"},
	{"/root/.lesshst", "history of searches"},
	{"/var/lib/logrotate.status", "when logs were rotated"},
	{"/var/lib/systemd/catalog", "systemd makes it at each boot"},
	{"/var/lib/systemd/network", "leases of systemd-networkd"},
	{"/var/lib/udisks2", "which disks are mounted now"},
	{"/home/*/.ICEauthority", "made at each login"},
	{"/home/*/.Xauthority", "made at each login"},
	{"/home/*/.xsession-errors*", "messages of the last session"},
	{"/home/*/.lesshst", "history of searches"},
	{"/home/*/.nix-defexpr", "nix makes it"},
	{"/home/*/.nix-profile", "nix makes it"},
	{"/home/*/.local/share/baloo", "an index of files, made again by itself"},
	{"/home/*/.local/share/recently-used.xbel", "which files were opened last"},
}

// advice is what is known of the paths that a rule matches.
type advice struct {
	rule    string
	why     string
	unit    string // that owns it
	lost    bool   // not worth keeping
	length  int    // components of the rule
	matcher *keep.Matcher
}

// advisor finds the advice for a path: that of the longest rule, and of several the
// first.
type advisor struct {
	list   []advice
	leadIn *keep.Matcher // of all rules: whether one goes on below a path
}

func newAdvisor(units []unitDir) (*advisor, error) {
	a := &advisor{}
	var rules []string
	add := func(one advice) error {
		set, err := keep.NewSet([]string{one.rule}, nil)
		if err != nil {
			return err
		}
		one.matcher = keep.NewMatcher(set)
		one.length = strings.Count(one.rule, "/")
		a.list = append(a.list, one)
		rules = append(rules, one.rule)
		return nil
	}
	for _, u := range usuallyKept {
		if err := add(advice{rule: u.rule, why: u.why}); err != nil {
			return nil, err
		}
	}
	for _, u := range usuallyLost {
		if err := add(advice{rule: u.rule, why: u.why, lost: true}); err != nil {
			return nil, err
		}
	}
	for _, u := range units {
		one := advice{rule: u.path, unit: u.unit, lost: u.cache}
		if u.cache {
			one.why = "a cache of " + u.unit
		}
		_ = add(one) // a unit may name what no rule can: then there is no advice
	}
	set, err := keep.NewSet(rules, nil)
	a.leadIn = keep.NewMatcher(set)
	return a, err
}

// about gives the advice for a path; nil if nothing is known.
func (a *advisor) about(abs string) *advice {
	var best *advice
	for i := range a.list {
		one := &a.list[i]
		if (best == nil || one.length > best.length) && one.matcher.Kept(abs) {
			best = one
		}
	}
	return best
}

// unitOf is the unit that owns a path; "" if none does.
func (a *advisor) unitOf(abs string) string {
	unit, length := "", 0
	for i := range a.list {
		one := &a.list[i]
		if one.unit != "" && one.length > length && one.matcher.Kept(abs) {
			unit, length = one.unit, one.length
		}
	}
	return unit
}

// goesOn tells whether more is known of what lies below a path.
func (a *advisor) goesOn(abs string) bool {
	state := a.leadIn.Root()
	for name := range strings.SplitSeq(abs, "/") {
		if name != "" {
			state = state.Step(name)
		}
	}
	return state.MayKeepBelow()
}
