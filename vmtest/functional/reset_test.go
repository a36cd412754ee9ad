package functional

import "testing"

func TestVM_Boot(t *testing.T) {
	b := newBox(t)
	b.boot()
	t.Log(b.sh("systemd-analyze || true; systemctl --failed || true; cat /run/initrd-reset/report.json; journalctl -b -u immutability.service; findmnt; lsblk"))
	b.powerOff()
}
