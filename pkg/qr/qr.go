// Package qr makes QR codes of short texts, such as a recovery key: versions 1
// to 6 with error correction level M, which hold up to 106 bytes (ISO/IEC
// 18004). Nothing is written anywhere; a code is as secret as its text.
package qr

import (
	"errors"
	"strings"
)

// ErrTooLong is a text that no code of version 6 holds.
var ErrTooLong = errors.New("too long for a QR code of version 6")

// version is a size of QR codes, at level M.
type version struct {
	data   int // bytes of data, over all blocks
	check  int // bytes of error correction in each block
	blocks int // all of one size in these versions
	align  int // centre of the alignment pattern, 0 for none
}

var versions = []version{
	{16, 10, 1, 0}, {28, 16, 1, 18}, {44, 26, 1, 22}, {64, 18, 2, 26}, {86, 24, 2, 30}, {108, 16, 4, 34},
}

// Code is a QR code: rows of modules, true for dark.
type Code struct {
	Size    int
	modules []bool
	fixed   []bool // patterns, which no mask changes
}

// Wipe makes the code blank: it is as good as its text.
func (c *Code) Wipe() { clear(c.modules) }

// Dark tells whether a module is dark; outside of the code none is.
func (c *Code) Dark(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.Size && y < c.Size && c.modules[y*c.Size+x]
}

// Encode makes the smallest code of a text.
func Encode(text []byte) (*Code, error) {
	for number, v := range versions {
		// Four bits of mode, eight of length, and the terminator.
		if len(text)+2 <= v.data {
			return encode(text, number+1, v), nil
		}
	}
	return nil, ErrTooLong
}

func encode(text []byte, number int, v version) *Code {
	words := codewords(text, v)
	bits := interleave(words, v)
	defer clear(words)
	defer clear(bits)
	var best *Code
	lowest := 0
	for mask := range 8 {
		c := draw(number, v, bits, mask)
		if penalty := c.penalty(); best == nil || penalty < lowest {
			best, lowest = c, penalty
		}
	}
	return best
}

// codewords is the data: byte mode, the length, the text, a terminator and
// padding.
func codewords(text []byte, v version) []byte {
	const byteMode = 0b0100
	words := make([]byte, 0, v.data)
	previous := byte(byteMode)
	for _, b := range append([]byte{byte(len(text))}, text...) {
		words = append(words, previous<<4|b>>4)
		previous = b & 0xf
	}
	words = append(words, previous<<4)
	for pad := byte(0xec); len(words) < v.data; pad ^= 0xec ^ 0x11 {
		words = append(words, pad)
	}
	return words
}

// interleave spreads the blocks, data first, then error correction.
func interleave(words []byte, v version) []byte {
	size := v.data / v.blocks
	out := make([]byte, 0, v.data+v.blocks*v.check)
	checks := make([][]byte, v.blocks)
	for b := range v.blocks {
		checks[b] = correction(words[b*size:(b+1)*size], v.check)
	}
	for i := range size {
		for b := range v.blocks {
			out = append(out, words[b*size+i])
		}
	}
	for i := range v.check {
		for b := range v.blocks {
			out = append(out, checks[b][i])
		}
	}
	return out
}

// correction is the Reed-Solomon code of a block over GF(256) with the
// polynomial x^8+x^4+x^3+x^2+1.
func correction(data []byte, size int) []byte {
	generator := make([]byte, size)
	generator[size-1] = 1
	root := byte(1)
	for range size {
		for i := range generator {
			generator[i] = multiply(generator[i], root)
			if i+1 < size {
				generator[i] ^= generator[i+1]
			}
		}
		root = multiply(root, 2)
	}
	rest := make([]byte, size)
	for _, b := range data {
		factor := b ^ rest[0]
		copy(rest, rest[1:])
		rest[size-1] = 0
		for i := range rest {
			rest[i] ^= multiply(generator[i], factor)
		}
	}
	return rest
}

func multiply(a, b byte) byte {
	var product byte
	for ; b > 0; b >>= 1 {
		if b&1 != 0 {
			product ^= a
		}
		high := a & 0x80
		a <<= 1
		if high != 0 {
			a ^= 0x1d
		}
	}
	return product
}

func draw(number int, v version, words []byte, mask int) *Code {
	size := 17 + 4*number
	c := &Code{Size: size, modules: make([]bool, size*size), fixed: make([]bool, size*size)}
	for i := range size { // timing
		c.set(6, i, i%2 == 0)
		c.set(i, 6, i%2 == 0)
	}
	for _, corner := range [][2]int{{3, 3}, {size - 4, 3}, {3, size - 4}} {
		c.rings(corner[0], corner[1], 4, func(d int) bool { return d != 2 && d != 4 })
	}
	if v.align != 0 {
		c.rings(v.align, v.align, 2, func(d int) bool { return d != 1 })
	}
	c.format(mask)
	c.fill(words, mask)
	return c
}

func (c *Code) set(x, y int, dark bool) {
	if x < 0 || y < 0 || x >= c.Size || y >= c.Size {
		return
	}
	c.modules[y*c.Size+x] = dark
	c.fixed[y*c.Size+x] = true
}

// rings draws a square pattern by the distance from its centre.
func (c *Code) rings(x, y, radius int, dark func(distance int) bool) {
	for dy := -radius; dy <= radius; dy++ {
		for dx := -radius; dx <= radius; dx++ {
			c.set(x+dx, y+dy, dark(max(dx, -dx, dy, -dy)))
		}
	}
}

// format writes level and mask, twice, with their BCH code.
func (c *Code) format(mask int) {
	const (
		levelM    = 0b00
		generator = 0x537
		scramble  = 0x5412
	)
	data := levelM<<3 | mask
	rest := data << 10
	for i := 14; i >= 10; i-- {
		if rest>>i&1 != 0 {
			rest ^= generator << (i - 10)
		}
	}
	bits := (data<<10 | rest) ^ scramble
	bit := func(i int) bool { return bits>>i&1 != 0 }
	for i := range 6 {
		c.set(8, i, bit(i))
	}
	c.set(8, 7, bit(6))
	c.set(8, 8, bit(7))
	c.set(7, 8, bit(8))
	for i := 9; i < 15; i++ {
		c.set(14-i, 8, bit(i))
	}
	for i := range 8 {
		c.set(c.Size-1-i, 8, bit(i))
	}
	for i := 8; i < 15; i++ {
		c.set(8, c.Size-15+i, bit(i))
	}
	c.set(8, c.Size-8, true) // always dark
}

// fill writes the bits in columns of two, upwards and downwards in turn, and
// masks them.
func (c *Code) fill(words []byte, mask int) {
	i := 0
	for right := c.Size - 1; right > 0; right -= 2 {
		if right == 6 { // the timing pattern takes a column of its own
			right--
		}
		upwards := (right+1)&2 == 0
		for step := range c.Size {
			y := step
			if upwards {
				y = c.Size - 1 - step
			}
			for _, x := range []int{right, right - 1} {
				if c.fixed[y*c.Size+x] {
					continue
				}
				dark := i < len(words)*8 && words[i/8]>>(7-i%8)&1 != 0
				i++
				c.modules[y*c.Size+x] = dark != masked(mask, x, y)
			}
		}
	}
}

func masked(mask, x, y int) bool {
	switch mask {
	case 0:
		return (x+y)%2 == 0
	case 1:
		return y%2 == 0
	case 2:
		return x%3 == 0
	case 3:
		return (x+y)%3 == 0
	case 4:
		return (x/3+y/2)%2 == 0
	case 5:
		return x*y%2+x*y%3 == 0
	case 6:
		return (x*y%2+x*y%3)%2 == 0
	default:
		return ((x+y)%2+x*y%3)%2 == 0
	}
}

// penalty is how hard a code is to scan: long runs, blocks, patterns that look
// like a corner, and an uneven share of dark modules.
func (c *Code) penalty() int {
	total, dark := 0, 0
	for y := range c.Size {
		total += c.runs(func(i int) bool { return c.Dark(i, y) })
		total += c.runs(func(i int) bool { return c.Dark(y, i) })
		for x := range c.Size {
			if c.Dark(x, y) {
				dark++
			}
			if x+1 < c.Size && y+1 < c.Size && c.Dark(x, y) == c.Dark(x+1, y) &&
				c.Dark(x, y) == c.Dark(x, y+1) && c.Dark(x, y) == c.Dark(x+1, y+1) {
				total += 3
			}
		}
	}
	percent := dark * 100 / (c.Size * c.Size)
	return total + max(percent-50, 50-percent)/5*10
}

func (c *Code) runs(dark func(int) bool) int {
	total, length, window := 0, 0, 0
	for i := range c.Size {
		if i > 0 && dark(i) == dark(i-1) {
			length++
		} else {
			length = 1
		}
		switch {
		case length == 5:
			total += 3
		case length > 5:
			total++
		}
		window = window << 1 & 0x7ff
		if dark(i) {
			window |= 1
		}
		if i >= 10 && (window == 0b00001011101 || window == 0b10111010000) {
			total += 40
		}
	}
	return total
}

// quiet is the width of the light border, in modules.
const quiet = 4

// Lines are the code for a terminal, two rows of modules in each line. Drawn
// are the light modules, as it is right on a dark background; inverted draws
// the dark ones, for a light background.
func (c *Code) Lines(inverted bool) []string {
	var lines []string
	for y := -quiet; y < c.Size+quiet; y += 2 {
		var b strings.Builder
		for x := -quiet; x < c.Size+quiet; x++ {
			upper, lower := c.Dark(x, y) == inverted, c.Dark(x, y+1) == inverted
			if y+1 >= c.Size+quiet { // half a line beyond the border
				lower = false
			}
			switch {
			case upper && lower:
				b.WriteString("█")
			case upper:
				b.WriteString("▀")
			case lower:
				b.WriteString("▄")
			default:
				b.WriteString(" ")
			}
		}
		lines = append(lines, b.String())
	}
	return lines
}
