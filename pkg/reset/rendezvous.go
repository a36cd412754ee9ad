package reset

import (
	"runtime"
	"sync/atomic"
	"time"
)

// rendezvous lets the volumes start their snapshots at the same moment. Each snapshot
// commits a transaction, and two share one only if the second joins it before the
// first has begun to close it, some microseconds later.
type rendezvous struct{ expected, here atomic.Int32 }

// patience is how long an early volume waits: about what a commit of its own costs.
const patience = 10 * time.Millisecond

// newRendezvous expects so many to meet or to leave.
func newRendezvous(expected int) *rendezvous {
	r := &rendezvous{}
	r.expected.Store(int32(expected))
	return r
}

// meet returns when all others are there or have left, or patience ends. It does not
// sleep: waking up would take longer than the moment lasts.
func (r *rendezvous) meet() {
	r.here.Add(1)
	for start := time.Now(); r.here.Load() < r.expected.Load() && time.Since(start) < patience; {
		runtime.Gosched()
	}
}

// leave tells the others not to wait.
func (r *rendezvous) leave() { r.expected.Add(-1) }
