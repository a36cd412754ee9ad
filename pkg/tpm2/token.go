package tpm2

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/google/go-tpm/tpm2"

	"nixos-go/pkg/luks"
)

// Token is a LUKS2 token of the type systemd-tpm2.
type Token struct {
	// PCRs are those whose values the policy fixes.
	PCRs []int `json:"pcrs"`
	Bank Bank  `json:"bank"`
	// Policy is the digest that the TPM compares, one for each part of a
	// divided secret.
	Policy [][]byte `json:"-"`
	PIN    bool     `json:"pin"`
	// Signed and PCRLock policies can change their mind about PCR values;
	// whether they match cannot be told from the values alone.
	Signed  bool `json:"signed"`
	PCRLock bool `json:"pcrlock"`
}

// ParseToken reads the JSON that systemd-cryptenroll writes
// (tpm2_make_luks2_json in systemd's tpm2-util.c).
func ParseToken(raw json.RawMessage) (Token, error) {
	var t struct {
		Type    string          `json:"type"`
		PCRs    []int           `json:"tpm2-pcrs"`
		Bank    Bank            `json:"tpm2-pcr-bank"`
		Policy  json.RawMessage `json:"tpm2-policy-hash"`
		PIN     bool            `json:"tpm2-pin"`
		PCRLock bool            `json:"tpm2_pcrlock"`
		PubKey  string          `json:"tpm2_pubkey"`
	}
	if err := json.Unmarshal(raw, &t); err != nil {
		return Token{}, fmt.Errorf("TPM2 token: %w", err)
	}
	if t.Type != luks.TokenTPM2 {
		return Token{}, fmt.Errorf("TPM2 token: type %q, want %q", t.Type, luks.TokenTPM2)
	}
	if t.Bank == "" {
		t.Bank = SHA256
	}
	for _, pcr := range t.PCRs {
		if pcr < 0 || pcr >= pcrCount {
			return Token{}, fmt.Errorf("TPM2 token: impossible PCR %d", pcr)
		}
	}
	policy, err := parsePolicy(t.Policy)
	if err != nil {
		return Token{}, fmt.Errorf("TPM2 token: tpm2-policy-hash: %w", err)
	}
	return Token{PCRs: t.PCRs, Bank: t.Bank, Policy: policy, PIN: t.PIN, Signed: t.PubKey != "", PCRLock: t.PCRLock}, nil
}

// parsePolicy reads one digest in hexadecimal, or a list of them.
func parsePolicy(raw json.RawMessage) ([][]byte, error) {
	var list []string
	if err := json.Unmarshal(raw, &list); err != nil {
		var one string
		if err := json.Unmarshal(raw, &one); err != nil {
			return nil, err
		}
		list = []string{one}
	}
	digests := make([][]byte, 0, len(list))
	for _, text := range list {
		digest, err := hex.DecodeString(text)
		if err != nil {
			return nil, err
		}
		if len(digest) != sha256.Size {
			return nil, fmt.Errorf("%d bytes, want %d", len(digest), sha256.Size)
		}
		digests = append(digests, digest)
	}
	return digests, nil
}

// Verdict tells whether a token would unlock at the next boot, as the PCRs are
// now.
type Verdict string

// The verdicts.
const (
	Matches Verdict = "matches"
	Differs Verdict = "differs"
	Unknown Verdict = "unknown"
)

// errValues is a policy over a PCR whose value was not given.
var errValues = errors.New("a PCR of the policy has no value")

// Judge compares a token's policy with PCR values, which must hold those of
// the token. PCR 15 counts as zero where the policy was made for that: by the
// time a program can ask, the initrd has measured into it.
func (t Token) Judge(values map[int][]byte) (verdict Verdict, volumeKeyUnmeasured bool, err error) {
	if t.Signed || t.PCRLock || len(t.Policy) != 1 {
		return Unknown, false, nil
	}
	atBoot := map[int][]byte{}
	maps.Copy(atBoot, values)
	covers := slices.Contains(t.PCRs, PCRVolumeKey)
	if covers {
		atBoot[PCRVolumeKey] = make([]byte, bankSize(t.Bank))
	}
	digest, err := t.digest(atBoot)
	if err != nil {
		return Unknown, false, err
	}
	if bytes.Equal(digest, t.Policy[0]) {
		return Matches, covers, nil
	}
	return Differs, false, nil
}

func bankSize(bank Bank) int {
	hash, err := banks[bank].Hash()
	if err != nil {
		return 0
	}
	return hash.Size()
}

// digest is the policy digest for PCR values: PolicyPCR, then PolicyAuthValue
// where there is a PIN (TPM 2.0 Library, part 3, 23.7 and 23.17).
func (t Token) digest(values map[int][]byte) ([]byte, error) {
	calculator, err := tpm2.NewPolicyCalculator(tpm2.TPMAlgSHA256)
	if err != nil {
		return nil, err
	}
	if len(t.PCRs) > 0 {
		alg, known := banks[t.Bank]
		if !known {
			return nil, fmt.Errorf("unknown PCR bank %q", t.Bank)
		}
		joined := sha256.New()
		for pcr := range pcrCount {
			if !slices.Contains(t.PCRs, pcr) {
				continue
			}
			if len(values[pcr]) == 0 {
				return nil, fmt.Errorf("PCR %d: %w", pcr, errValues)
			}
			joined.Write(values[pcr])
		}
		err := tpm2.PolicyPCR{
			PcrDigest: tpm2.TPM2BDigest{Buffer: joined.Sum(nil)}, Pcrs: selection(alg, t.PCRs),
		}.Update(calculator)
		if err != nil {
			return nil, fmt.Errorf("policy of PCRs %v: %w", t.PCRs, err)
		}
	}
	if t.PIN {
		if err := (tpm2.PolicyAuthValue{}).Update(calculator); err != nil {
			return nil, fmt.Errorf("policy with a PIN: %w", err)
		}
	}
	return calculator.Hash().Digest, nil
}
