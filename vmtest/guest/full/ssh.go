package full

// What makes the guest answer ssh where the machine has a network. It costs a
// boot nothing: the server starts with the first connection.

// sshSocket listens on the port of ssh.
const sshSocket = `[Unit]
Description=The port of ssh
[Socket]
ListenStream=22
Accept=yes
`

// sshService serves one connection. The keys of the host are those that the
// package has made when it was installed.
const sshService = `[Unit]
Description=One connection by ssh
[Service]
ExecStart=-/usr/sbin/sshd -i
RuntimeDirectory=sshd
RuntimeDirectoryPreserve=yes
StandardInput=socket
StandardError=journal
`

// networkRule gives an interface the address to which QEMU forwards ports
// (qemu(1), -netdev user). There is no other to be told from it.
const networkRule = `ACTION=="add", SUBSYSTEM=="net", DRIVERS=="virtio_net", ` +
	`RUN+="/usr/bin/ip address add 10.0.2.15/24 dev $name", RUN+="/usr/bin/ip link set $name up"
`
