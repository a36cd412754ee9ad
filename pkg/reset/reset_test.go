package reset

import "testing"

func TestResetKeepsAndWipes(t *testing.T) {
	v := PlanFileVolume{
		Name: "@root", MountPoint: "/",
		Keep:    []string{"/etc/ssh", "/var/lib/docker", "/home/*/Downloads", "/home/*/.config"},
		Exclude: []string{"/home/*/.config/chrome/*/Cache"},
	}
	m := newMachine(t, newDisk(t, 512<<20), v)
	m.sh("@root", `mkdir -p etc/ssh var/lib home/alice usr/bin
		echo host > etc/hostname; echo key > etc/ssh/key; echo motd > etc/motd
		echo a > usr/bin/a; ln usr/bin/a usr/bin/b; ln -s a usr/bin/c; chattr +i etc/motd
		setfattr -n user.x -v 1 usr/bin/a; setfacl -m u:1000:rwx usr/bin`)
	m.takeClean()
	m.sh("@root", `chattr -i etc/motd; echo x > etc/motd; echo junk > etc/junk; mkdir -p tmp/x/y; echo > tmp/x/y/z
		echo other > etc/ssh/other; rm etc/ssh/key; chmod 700 usr; rm usr/bin/b
		mkdir -p home/bob/Downloads home/bob/.config/chrome/Default/Cache; echo d > home/bob/Downloads/d
		echo c > home/bob/.config/chrome/Default/Cache/c; echo k > home/bob/.config/chrome/Default/k
		btrfs -q subvolume create var/lib/docker; btrfs -q subvolume create var/lib/docker/inner; echo i > var/lib/docker/inner/i
		btrfs -q subvolume create var/lib/machines`)
	t.Log(describe(m.checkReset(v)))

	for _, script := range []string{
		`echo new > etc/new; echo mod >> etc/hostname; echo kept >> home/bob/Downloads/d`,
		`mkdir home/bob/.config/chrome/Default/Cache; rm etc/hostname; mv usr/bin usr/bin2`,
		`rm -rf home/bob/Downloads home/bob/.config; ln usr/bin/c etc/ssh/linked`,
		`btrfs -q subvolume create home/carol; mkdir home/carol/Downloads; echo x > home/carol/x; btrfs -q subvolume create home/carol/Downloads/v`,
		`echo y > home/carol/y`,
	} {
		m.sh("@root", script)
		r := m.checkReset(v)
		t.Log(describe(r))
		if r.Volumes[0].Way != WayChanged {
			t.Errorf("way after %q = %s, want %s", script, r.Volumes[0].Way, WayChanged)
		}
	}
	if r := m.run(Options{}); r.Volumes[0].Outcome != OutcomeUnchanged {
		t.Errorf("outcome with nothing changed = %s, want %s", r.Volumes[0].Outcome, OutcomeUnchanged)
	}
}
