package tunnel

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// wire is a frame of that size as it is sent (RFC 6455 section 5.2).
func wire(opcode byte, size int, masked bool) []byte {
	f := []byte{0x80 | opcode}
	switch {
	case size < 126:
		f = append(f, byte(size))
	case size < 1<<16:
		f = binary.BigEndian.AppendUint16(append(f, 126), uint16(size))
	default:
		f = binary.BigEndian.AppendUint64(append(f, 127), uint64(size))
	}
	if masked {
		f[1] |= 0x80
		f = append(f, 1, 2, 3, 4)
	}
	return append(f, bytes.Repeat([]byte{0x88}, size)...)
}

// However the bytes are cut up, the close frame comes after the frame that was begun.
func TestTheCloseFrameGoesBetweenTwoFrames(t *testing.T) {
	t.Parallel()
	dice := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		var all []byte
		ends := map[int]bool{0: true}
		for range 1 + dice.IntN(6) {
			size := []int{0, 1, 125, 126, 300, 1<<16 - 1, 1 << 16, 70_000}[dice.IntN(8)]
			all = append(all, wire(byte(1+dice.IntN(2)), size, dice.IntN(2) == 0)...)
			ends[len(all)] = true
		}
		var out bytes.Buffer
		d := direction{out: &out, bye: closeFrame(reason, nil)}
		cut := dice.IntN(len(all) + 1)
		for rest := all; len(rest) > 0; {
			n := 1 + dice.IntN(len(rest))
			if sent := len(all) - len(rest); sent < cut && sent+n > cut {
				n = cut - sent
			} else if sent == cut {
				d.end()
			}
			if _, err := d.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		d.end()
		before, closed := bytes.CutSuffix(out.Bytes(), closeFrame(reason, nil))
		if !closed || !ends[len(before)] || !bytes.HasPrefix(all, before) || len(before) < cut {
			t.Fatalf("cut at %d of %d: %d bytes, then a close frame: %t", cut, len(all), len(before), closed)
		}
	}
}

func TestNothingFollowsACloseFrameOfTheOtherSide(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	d := direction{out: &out, bye: closeFrame(reason, nil)}
	said := wire(opClose, 2, false)
	if _, err := d.Write(said); err != nil {
		t.Fatal(err)
	}
	d.end()
	if !bytes.Equal(out.Bytes(), said) {
		t.Errorf("a second goodbye: %x", out.Bytes())
	}
}

func TestACloseFrameOfAClientIsMasked(t *testing.T) {
	t.Parallel()
	f := closeFrame(reason, &[4]byte{1, 2, 3, 4})
	if f[1]&0x80 == 0 || !bytes.Equal(f[2:6], []byte{1, 2, 3, 4}) || bytes.Contains(f, []byte(reason)) || len(f) != 6+2+len(reason) {
		t.Errorf("%x", f)
	}
}

func TestAnEndDoesNotWaitForAReaderThatDoesNotRead(t *testing.T) {
	t.Parallel()
	client, clientFar := net.Pipe()
	app, appFar := net.Pipe()
	defer clientFar.Close()
	defer appFar.Close()
	ws := NewWebSocket(client, app)
	stuck := make(chan error, 1)
	go func() {
		_, err := ws.ToClient().Write(wire(1, 10, false))
		stuck <- err
	}()
	ws.End()
	if err := <-stuck; err == nil {
		t.Error("a write that nobody read succeeded")
	}
	if _, err := io.ReadAll(appFar); err != nil {
		t.Errorf("the app's connection: %v", err)
	}
}

func FuzzFramesBearAnyBytes(f *testing.F) {
	f.Add(wire(1, 200, true), 3)
	f.Fuzz(func(t *testing.T, p []byte, cut int) {
		var whole, parts frames
		whole.follow(p)
		cut = min(max(cut, 0), len(p))
		parts.follow(p[:cut])
		parts.follow(p[cut:])
		if whole != parts {
			t.Errorf("cut at %d: %+v, whole: %+v", cut, parts, whole)
		}
	})
}
