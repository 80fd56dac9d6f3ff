package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// portsFile has a byte for each port; a locked one is some stack's.
const portsFile = "slipway-e2e-ports"

// freePorts finds ports of the loopback address that nothing listens on, below
// those that the kernel gives to outgoing connections. They are the stack's until it
// is closed: between their choice and their use they are given to no other.
func (s *Stack) freePorts(n int) ([]int, error) {
	const first, last = 20000, 32000
	if s.reserved == nil {
		file, err := os.OpenFile(filepath.Join(os.TempDir(), portsFile), os.O_CREATE|os.O_RDWR, 0o666)
		if err != nil {
			return nil, fmt.Errorf("reserve ports: %w", err)
		}
		s.reserved = file
	}
	var ports []int
	for range 200 {
		if len(ports) == n {
			return ports, nil
		}
		port := first + rand.IntN(last-first)
		// Locking again what is locked by ourselves would succeed.
		if s.ours[port] {
			continue
		}
		lock := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(port), Len: 1}
		if err := unix.FcntlFlock(s.reserved.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
			continue
		}
		listener, err := net.Listen("tcp", local(port))
		if err != nil {
			continue
		}
		if err := listener.Close(); err != nil {
			return nil, fmt.Errorf("let go of port %d: %w", port, err)
		}
		s.ours[port] = true
		ports = append(ports, port)
	}
	return nil, errors.New("no free ports were found")
}

// FreeAddress is a loopback host:port for something that stands beside the platform; it
// is given to no other stack until this one is closed.
func (s *Stack) FreeAddress() (string, error) {
	ports, err := s.freePorts(1)
	if err != nil {
		return "", err
	}
	return local(ports[0]), nil
}

// releasePorts gives the stack's ports to others.
func (s *Stack) releasePorts() error {
	if s.reserved == nil {
		return nil
	}
	err := s.reserved.Close()
	s.reserved, s.ours = nil, map[int]bool{}
	return err
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
