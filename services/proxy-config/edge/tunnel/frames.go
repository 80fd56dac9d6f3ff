package tunnel

import (
	"encoding/binary"
	"math"
)

// opClose is the opcode of a close frame (RFC 6455 section 5.5.1).
const opClose = 8

// frames follows where one direction of a WebSocket is between two frames (RFC 6455
// section 5.2). It looks at headers only and keeps no payload.
type frames struct {
	header [14]byte
	have   int    // bytes of header that are known
	left   uint64 // payload that is still to come
	closed bool   // a close frame went by: nothing may follow it
}

// between reports whether a frame of our own may be put in here.
func (f *frames) between() bool { return f.have == 0 && f.left == 0 }

// upToBoundary follows p to the first end of a frame and returns how much of p that
// is: all of it when none ends in it.
func (f *frames) upToBoundary(p []byte) int {
	n := 0
	for n < len(p) {
		if f.left > 0 {
			step := min(f.left, uint64(len(p)-n))
			f.left -= step
			n += int(step)
			if f.left == 0 {
				return n
			}
			continue
		}
		f.header[f.have] = p[n]
		f.have++
		n++
		if size := f.headerSize(); f.have < 2 || f.have < size {
			continue
		}
		f.left = f.payload()
		f.closed = f.closed || f.header[0]&0x0f == opClose
		f.have = 0
		if f.left == 0 {
			return n
		}
	}
	return n
}

// follow follows all of p.
func (f *frames) follow(p []byte) {
	for len(p) > 0 {
		p = p[f.upToBoundary(p):]
	}
}

func (f *frames) headerSize() int {
	size := 2
	switch f.header[1] & 0x7f {
	case 126:
		size += 2
	case 127:
		size += 8
	}
	if f.header[1]&0x80 != 0 {
		size += 4
	}
	return size
}

func (f *frames) payload() uint64 {
	switch n := f.header[1] & 0x7f; n {
	case 126:
		return uint64(binary.BigEndian.Uint16(f.header[2:4]))
	case 127:
		return binary.BigEndian.Uint64(f.header[2:10]) & math.MaxInt64
	default:
		return uint64(n)
	}
}

// goingAway is the status code of a server that goes (RFC 6455 section 7.4.1).
const goingAway = 1001

// closeFrame is a close frame with status 1001. What a client sends is masked, what
// a server sends is not.
func closeFrame(reason string, mask *[4]byte) []byte {
	payload := append(binary.BigEndian.AppendUint16(nil, goingAway), reason...)
	frame := []byte{0x80 | opClose, byte(len(payload))}
	if mask != nil {
		frame[1] |= 0x80
		frame = append(frame, mask[:]...)
		for i := range payload {
			payload[i] ^= mask[i%4]
		}
	}
	return append(frame, payload...)
}
