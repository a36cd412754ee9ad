package leak

import (
	"context"
	"fmt"
	"strings"

	"nixos-go/pkg/prompt"
)

// Keeper is a person who types secrets and holds on to the buffers that the tool got,
// so that a test can look whether it wiped them. Other questions go to the Prompter.
type Keeper struct {
	prompt.Prompter

	Answers map[string]string // by the beginning of the question
	Given   [][]byte          // the tool's own buffers, in the order of the questions
}

// Password answers a question for a secret.
func (k *Keeper) Password(_ context.Context, q prompt.Question) ([]byte, error) {
	for begin, answer := range k.Answers {
		if strings.HasPrefix(q.Text, begin) {
			secret := []byte(answer)
			k.Given = append(k.Given, secret)
			return secret, nil
		}
	}
	return nil, fmt.Errorf("unexpected question %q", q.Text)
}
