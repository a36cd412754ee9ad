// Package agent is the host's side of the agent in a guest, and the protocol
// between the two.
//
// They exchange JSON objects, one a line, over a virtio-serial port. Each
// request has an id; any number of replies carry it, the last one says done.
// Requests run at the same time. The guest announces itself with a hello of id
// 0 when it starts, and its boot id tells one boot from the next. Either side
// skips what it cannot parse: after a reset or a new connection the first line
// may be the end of an old one.
package agent

import "time"

// PortName is the name of the virtio-serial port, as QEMU's virtserialport and
// the guest's /sys/class/virtio-ports/*/name have it.
const PortName = "nixos-go.agent"

// Chunk is how much of a file or a stream one line carries at most, in bytes.
const Chunk = 192 << 10

// Op is what a request asks for.
type Op string

// The requests.
const (
	// OpHello asks for a hello.
	OpHello Op = "hello"
	// OpRun runs Argv; replies carry output, the last one the exit.
	OpRun Op = "run"
	// OpKill kills the process group of the run with the id Target. It has no
	// reply of its own.
	OpKill Op = "kill"
	// OpPut writes Data to the end of a file that appears under Path when a
	// request without More comes. One request after the other, all of one id.
	OpPut Op = "put"
	// OpGet reads the file at Path.
	OpGet Op = "get"
	// OpPower ends the guest as How says, after the reply.
	OpPower Op = "power"
)

// Power is a way to end a guest.
type Power string

// The ways.
const (
	PowerOff Power = "off"
	Reboot   Power = "reboot"
)

// Request goes to the guest.
type Request struct {
	ID     uint64   `json:"id"`
	Op     Op       `json:"op"`
	Argv   []string `json:"argv,omitempty"`
	Env    []string `json:"env,omitempty"`
	Dir    string   `json:"dir,omitempty"`
	Stdin  []byte   `json:"stdin,omitempty"`
	Target uint64   `json:"target,omitempty"`
	Path   string   `json:"path,omitempty"`
	Mode   uint32   `json:"mode,omitempty"` // permission bits
	Data   []byte   `json:"data,omitempty"`
	More   bool     `json:"more,omitempty"`
	How    Power    `json:"how,omitempty"`
}

// Reply comes from the guest.
type Reply struct {
	ID     uint64 `json:"id"`
	Hello  *Hello `json:"hello,omitempty"`
	Stdout []byte `json:"stdout,omitempty"`
	Stderr []byte `json:"stderr,omitempty"`
	Data   []byte `json:"data,omitempty"`
	Exit   *Exit  `json:"exit,omitempty"`
	Error  string `json:"error,omitempty"` // the request could not be carried out
	Errno  int    `json:"errno,omitempty"` // the system call's reason, where there is one
	Done   bool   `json:"done,omitempty"`
}

// Hello is what a guest says of itself.
type Hello struct {
	// Boot is the kernel's random id of this boot.
	Boot string `json:"boot"`
	// Kernel is its release, "6.1.0-…".
	Kernel string `json:"kernel"`
	// Machine is its architecture as uname has it.
	Machine string `json:"machine"`
	// UptimeSeconds is since the kernel has started.
	UptimeSeconds float64 `json:"uptimeSeconds"`
	// Cmdline is the kernel's command line.
	Cmdline string `json:"cmdline"`
}

// Exit is how a program ended.
type Exit struct {
	// Status is its exit status, -1 where a signal ended it.
	Status int `json:"status"`
	// Signal is that signal's number.
	Signal int `json:"signal,omitempty"`
	// Duration is measured in the guest.
	Duration time.Duration `json:"nanoseconds"`
}
