package reset

import (
	"fmt"
	"testing"
)

func BenchmarkQuick(b *testing.B) {
	d := newDesk(b, load{72000, 2000, 200})
	for range b.N {
		for _, cold := range []bool{false, true} {
			for range 8 {
				r := d.round(cold)
				fmt.Printf("cold=%v floor %.1f reset %.1f ratio %.1f %v %d %d\n", cold, ms(r.floor), ms(r.reset), ms(r.reset)/ms(r.floor), r.phases, r.wiped, r.changed)
			}
		}
	}
}
