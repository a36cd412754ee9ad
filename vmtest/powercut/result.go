package powercut

import "nixos-go/vmtest/powercut/writelog"

// A Failure is a crash point at which something did not hold.
type Failure struct {
	Scenario string `json:"scenario"`
	Point    string `json:"point"`
	Phase    Phase  `json:"phase"`
	Error    string `json:"error"`
	Image    string `json:"image"`  // the disk as the cut left it
	Repeat   string `json:"repeat"` // the command that tries the point again
}

// A Tally counts the points of one sort.
type Tally struct {
	Tried  int `json:"tried"`
	Failed int `json:"failed"`
}

// A Result is what became of one scenario.
type Result struct {
	Scenario string          `json:"scenario"`
	Mode     string          `json:"mode"`
	Log      writelog.Counts `json:"log"`
	Points   map[Kind]Tally  `json:"points"`
	// Twice counts the points at which the recovery was cut off too.
	Twice    map[Kind]Tally `json:"twice,omitempty"`
	Failures []Failure      `json:"failures,omitempty"`
	Seconds  float64        `json:"seconds"`
}

// Failed is how many points failed.
func (r *Result) Failed() int { return len(r.Failures) }

// Tried is how many points were tried.
func (r *Result) Tried() int {
	n := 0
	for _, points := range []map[Kind]Tally{r.Points, r.Twice} {
		for _, t := range points {
			n += t.Tried
		}
	}
	return n
}
