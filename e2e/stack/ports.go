package stack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// freePorts finds ports of the loopback address that nothing listens on, below
// those that the kernel gives to outgoing connections.
func freePorts(n int) ([]int, error) {
	const first, last = 20000, 32000
	ports := make([]int, 0, n)
	listeners := make([]net.Listener, 0, n)
	defer func() {
		for _, l := range listeners {
			_ = l.Close() // nothing was accepted
		}
	}()
	for range 200 {
		if len(ports) == n {
			return ports, nil
		}
		port := first + rand.IntN(last-first)
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		ports, listeners = append(ports, port), append(listeners, listener)
	}
	return nil, errors.New("no free ports were found")
}

func local(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
