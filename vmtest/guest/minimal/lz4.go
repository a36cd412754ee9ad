package minimal

import (
	"encoding/binary"
	"errors"
)

// lz4Magic begins the frames that the kernel's build makes (lz4 -l).
const lz4Magic = "\x02\x21\x4c\x18"

var errLZ4 = errors.New("damaged LZ4 data")

// unpackLZ4 unpacks a legacy frame: blocks, each with its size before it. A
// block unpacks to 8 MiB at most. Formats: lz4, doc/lz4_Frame_format.md and
// doc/lz4_Block_format.md.
func unpackLZ4(packed []byte) ([]byte, error) {
	packed = packed[len(lz4Magic):]
	var out []byte
	for len(packed) > 0 {
		if len(packed) < 4 {
			return nil, errLZ4
		}
		size := binary.LittleEndian.Uint32(packed)
		packed = packed[4:]
		if int64(size) > int64(len(packed)) {
			return nil, errLZ4
		}
		var err error
		if out, err = unpackBlock(out, packed[:size]); err != nil {
			return nil, err
		}
		packed = packed[size:]
	}
	return out, nil
}

// unpackBlock appends one block to out. It is a row of sequences: literals, and
// then a copy of what was unpacked before.
func unpackBlock(out, block []byte) ([]byte, error) {
	const blockMax, minMatch = 8 << 20, 4
	start := len(out)
	for len(block) > 0 {
		token := block[0]
		literals, rest, err := length(int(token>>4), block[1:])
		if err != nil || literals > len(rest) {
			return nil, errLZ4
		}
		out, block = append(out, rest[:literals]...), rest[literals:]
		if len(block) == 0 { // the last sequence has no copy
			return out, nil
		}
		if len(block) < 2 {
			return nil, errLZ4
		}
		distance := int(binary.LittleEndian.Uint16(block))
		match, rest, err := length(int(token&15), block[2:])
		match += minMatch
		if err != nil || distance == 0 || distance > len(out)-start || len(out)-start+match > blockMax {
			return nil, errLZ4
		}
		block = rest
		for range match { // may overlap what it makes
			out = append(out, out[len(out)-distance])
		}
	}
	return out, nil
}

// length reads on where four bits do not hold a length.
func length(n int, rest []byte) (int, []byte, error) {
	if n < 15 {
		return n, rest, nil
	}
	for i, b := range rest {
		n += int(b)
		if b != 255 {
			return n, rest[i+1:], nil
		}
	}
	return 0, nil, errLZ4
}
