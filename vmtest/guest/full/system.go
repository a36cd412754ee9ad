package full

// What the installed system holds beyond its packages.

// Account is the owner of the machine, in the group of admins.
const Account = "admin"

// agentService is the agent's unit. It waits for the disk of tools, and for
// nothing that a broken boot may lack.
const agentService = `[Unit]
Description=Agent of the virtual machine
RequiresMountsFor=/opt/vm
After=basic.target
[Service]
ExecStart=/opt/vm/vm-agent
Restart=on-failure
StandardOutput=null
Environment=HOME=/root PATH=/opt/vm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
[Install]
WantedBy=multi-user.target
`

// generationService does what the stage 2 of NixOS does: what is booted stays
// what it is when the profile moves on.
const generationService = `[Unit]
Description=Name the generation that was booted
DefaultDependencies=no
RequiresMountsFor=/nix
Before=sysinit.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'g=$(readlink -f /nix/var/nix/profiles/system) && ln -sfn $g /run/booted-system && ln -sfn $g /run/current-system && $g/activate'
[Install]
WantedBy=sysinit.target
`

// activate is what a generation does to the system at boot and at a switch, as
// far as tests look at it: the account has the password of the hash file.
const activate = `#!/bin/sh -eu
file=/var/lib/nixos-go/secrets/hashed-password
[ ! -e "$file" ] || printf '` + Account + `:%s\n' "$(cat "$file")" | chpasswd -e
`

// System is what is installed, beyond the packages.
type System struct {
	// Units are units of the system, names to texts.
	Units map[string]string
	// Programs are scripts that the units run, by their names in /bin.
	Programs map[string]string
	// Plan and Settings are the files of the first generation,
	// /etc/immutability/plan.json and /etc/nixos-go/settings.json.
	Plan, Settings []byte
}

// generation is the first one, in the store.
const generation = "nix/store/00000000000000000000000000000001-nixos-system-vm-test-1"

// machineID is the same for all guests: systemd makes one up otherwise, which
// costs a commit of the disk at the first boot.
const machineID = "0123456789abcdef0123456789abcdef"

func systemFiles() map[string]string {
	options := "compress=zstd,noatime,subvol="
	return map[string]string{
		"etc/fstab": "/dev/mapper/root / btrfs " + options + "@root 0 0\n" +
			"/dev/mapper/root /home btrfs " + options + "@home 0 0\n" +
			"/dev/mapper/root /nix btrfs " + options + "@nix 0 0\n" +
			"/dev/mapper/root /.snapshots btrfs nosuid,nodev,noexec,noatime,subvol=@snapshots 0 0\n" +
			"/dev/disk/by-partlabel/" + labelESP + " /boot vfat umask=0077,nofail,x-systemd.automount 0 0\n" +
			"/dev/disk/by-id/virtio-" + ToolsDisk + " /opt/vm ext4 ro 0 0\n",
		"etc/hostname":                             "vm-test\n",
		"etc/machine-id":                           machineID + "\n",
		"etc/systemd/system/vm-agent.service":      agentService,
		"etc/systemd/system/vm-generation.service": generationService,
		"etc/systemd/system/vm-ssh.socket":         sshSocket,
		"etc/systemd/system/vm-ssh@.service":       sshService,
		"etc/udev/rules.d/90-vm-network.rules":     networkRule,
		"etc/systemd/journald.conf.d/vm.conf":      "[Journal]\nStorage=volatile\nRateLimitBurst=0\nMaxLevelConsole=notice\n",
		"etc/systemd/system.conf.d/vm.conf":        "[Manager]\nDefaultTimeoutStartSec=240\nDefaultDeviceTimeoutSec=240\nDefaultTimeoutStopSec=20\n",
		"etc/tmpfiles.d/vm.conf":                   "z /.snapshots 0700 root root -\n",
		"etc/modules-load.d/vm.conf":               "virtio_console\n",
		"etc/gitconfig":                            "[safe]\n\tdirectory = *\n",
	}
}
