package gpuvfio

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"nixos-go/pkg/clikit"
	"nixos-go/pkg/pci"
	"nixos-go/pkg/pci/vfio"
	"nixos-go/pkg/ui"
)

// State is where a card is.
type State string

// The states of a card.
const (
	AtHost State = "host"
	AtVFIO State = "vfio"
	// Between is a card that a run which was cut off left half-way.
	Between State = "between"
)

// Status is the result of `gpu-vfio status`.
type Status struct {
	IOMMU bool         `json:"iommu"`
	GPUs  []CardStatus `json:"gpus"`
}

// CardStatus is what is known of one card.
type CardStatus struct {
	Address   pci.Address    `json:"address"`
	Name      string         `json:"name"`
	State     State          `json:"state"`
	Functions []pci.Function `json:"functions"`
	Foreign   []pci.Function `json:"foreign,omitempty"`
	// Connected are the outputs with a display.
	Connected []string     `json:"connected,omitempty"`
	Holders   []pci.Holder `json:"holders,omitempty"`
	// Hidden counts processes that the caller may not look into.
	Hidden   int           `json:"hidden,omitempty"`
	Refusals []pci.Refusal `json:"refusals,omitempty"`
	Journal  *vfio.Journal `json:"journal,omitempty"`
	// BootDisplay tells whether the firmware drew on it.
	BootDisplay bool `json:"bootDisplay"`
	// Next is what to do next.
	Next string `json:"next,omitempty"`
}

func (t *tool) status(c *cli.Context) error {
	if err := clikit.NoArgs(c); err != nil {
		return err
	}
	address, err := cardOf(c)
	if err != nil {
		return err
	}
	status, err := t.look(address)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return t.env.UI.JSON(status)
	}
	return t.show(status)
}

// look fills in the status of all cards, or of one.
func (t *tool) look(address *pci.Address) (Status, error) {
	system, err := t.open(t.env, 0)
	if err != nil {
		return Status{}, err
	}
	machine, err := system.Machine()
	if err != nil {
		return Status{}, err
	}
	gpus := machine.GPUs()
	if address != nil {
		one, err := machine.Choose(address)
		if err != nil {
			return Status{}, err
		}
		gpus = []pci.GPU{one}
	}
	status := Status{IOMMU: machine.IOMMU(), GPUs: []CardStatus{}}
	for _, g := range gpus {
		card, err := t.card(system, machine, g)
		if err != nil {
			return status, err
		}
		status.GPUs = append(status.GPUs, card)
	}
	return status, nil
}

func (t *tool) card(system vfio.System, machine pci.Machine, g pci.GPU) (CardStatus, error) {
	holders, hidden, err := system.Holders(vfio.Watched(machine, g))
	if err != nil {
		return CardStatus{}, err
	}
	journal, err := t.store().Load(g.Display.Address)
	if err != nil && !errors.Is(err, fs.ErrPermission) {
		return CardStatus{}, err
	}
	card := CardStatus{
		Address: g.Display.Address, Name: g.Display.Name, State: stateOf(machine, g, journal),
		Functions: g.Functions, Foreign: g.Foreign, Connected: g.Connected(),
		Holders: holders, Hidden: hidden, Refusals: machine.Refusals(g), Journal: journal,
		BootDisplay: g.Display.BootDisplay,
	}
	card.Next = next(card)
	return card, nil
}

func stateOf(m pci.Machine, g pci.GPU, journal *vfio.Journal) State {
	atVFIO := 0
	for _, f := range g.Functions {
		if f.Driver == "vfio-pci" {
			atVFIO++
		}
	}
	switch {
	case journal != nil && journal.Phase != vfio.Detached && journal.BootID == m.BootID:
		return Between
	case atVFIO == len(g.Functions):
		return AtVFIO
	case atVFIO > 0:
		return Between
	default:
		return AtHost
	}
}

func next(card CardStatus) string {
	switch {
	case card.State == Between:
		return "a run was cut off half-way: sudo gpu-vfio attach --gpu " + card.Address.String() + " puts everything back"
	case card.State == AtVFIO && len(card.Holders) > 0:
		return "shut the virtual machine down before you give the card back"
	case card.State == AtVFIO:
		return "sudo gpu-vfio attach --gpu " + card.Address.String() + " gives it back to the host"
	case card.BootDisplay:
		return "nothing: the host needs this card for its own picture"
	case len(card.Refusals) > 0:
		return card.Refusals[0].Cure
	default:
		return "sudo gpu-vfio detach --gpu " + card.Address.String() + " frees it for a virtual machine"
	}
}

func (t *tool) show(status Status) error {
	u := t.env.UI
	if len(status.GPUs) == 0 {
		return u.Print("no graphics card here")
	}
	for i, card := range status.GPUs {
		if i > 0 {
			if err := u.Print("\n"); err != nil {
				return err
			}
		}
		if err := t.showCard(card); err != nil {
			return err
		}
	}
	return nil
}

func (t *tool) showCard(card CardStatus) error {
	u := t.env.UI
	title := card.Name
	if title == "" {
		title = card.Functions[0].Vendor.Maker() + " " + card.Functions[0].Vendor.String() + ":" + card.Functions[0].Device.String()
	}
	if card.BootDisplay {
		title += ", the boot display"
	}
	if err := u.Printf("%s", u.Out(ui.Bold, card.Address.String()+"  "+title)); err != nil {
		return err
	}
	table := &ui.Table{Head: []string{"  FUNCTION", "KIND", "GROUP", "DRIVER"}}
	for _, f := range card.Functions {
		table.Row("  "+f.Address.String(), f.Kind, group(f), driverOf(f))
	}
	for _, f := range card.Foreign {
		table.Row("  "+f.Address.String(), f.Kind, group(f), driverOf(f)+"  (another device in its group)")
	}
	if err := u.Table(table); err != nil {
		return err
	}
	return u.Print(strings.Join(t.facts(card), "\n"))
}

// facts are the lines below the table.
func (t *tool) facts(card CardStatus) []string {
	lines := []string{"  state:    " + stateText(card.State)}
	if card.State == AtHost {
		displays := "none connected"
		if len(card.Connected) > 0 {
			displays = strings.Join(card.Connected, ", ")
		}
		lines = append(lines, "  displays: "+displays)
	}
	for i, h := range card.Holders {
		label := "  held by:  "
		if i > 0 {
			label = "            "
		}
		text := ui.Printable(h.String())
		if h.LetsGo() {
			text += " (lets go by itself)"
		}
		lines = append(lines, label+text)
	}
	if card.Hidden > 0 {
		lines = append(lines, fmt.Sprintf("            %s of other users hidden: run as root to see them", ui.Count(int64(card.Hidden), "process")))
	}
	if card.State == AtHost {
		for _, r := range card.Refusals {
			lines = append(lines, "  in the way: "+r.Reason)
		}
	}
	if card.Journal != nil {
		for _, h := range card.Journal.Hung {
			if h.Alive() {
				lines = append(lines, fmt.Sprintf("  hangs:    %s (process %d); only a reboot frees it", h.Step, h.PID))
			}
		}
	}
	return append(lines, "  next:     "+card.Next)
}

func group(f pci.Function) string {
	if f.Group == nil {
		return "none"
	}
	return strconv.Itoa(*f.Group)
}

func driverOf(f pci.Function) string {
	text := f.Driver
	if text == "" {
		text = "none"
	}
	if f.Override != "" && f.Override != f.Driver {
		text += " (reserved for " + f.Override + ")"
	}
	return text
}

func stateText(s State) string {
	switch s {
	case AtVFIO:
		return "at vfio-pci, for a virtual machine"
	case Between:
		return "half-way between the host and vfio-pci"
	case AtHost:
		return "with the host"
	}
	return string(s)
}
