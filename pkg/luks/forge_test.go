package luks

import (
	"crypto/sha256"
	"encoding/binary"
)

// Forge is a volume whose header has this JSON and a right checksum.
func Forge(area []byte) []byte {
	const size = 0x4000
	h := make([]byte, max(size, binarySize+len(area)+1))
	copy(h, magicFirst)
	binary.BigEndian.PutUint16(h[offVersion:], 2)
	binary.BigEndian.PutUint64(h[offSize:], uint64(len(h)))
	copy(h[offAlgo:], "sha256")
	copy(h[binarySize:], area)
	sum := sha256.Sum256(h)
	copy(h[offChecksum:], sum[:])
	return h
}
