package stack

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Listener is a TCP address that one of the platform's processes listens on.
type Listener struct {
	Address netip.AddrPort
	Pid     int
}

// Listeners are the TCP addresses of this machine that the platform's processes listen
// on: the daemon's or the services', those they started, and those that were left to
// themselves with the stack's directory on their command line. What is inside of apps' own
// network namespaces is not among them.
func (s *Stack) Listeners() ([]Listener, error) {
	pids, err := s.processTree()
	if err != nil {
		return nil, err
	}
	here, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return nil, fmt.Errorf("find the network namespace: %w", err)
	}
	listening, err := listeningSockets()
	if err != nil {
		return nil, err
	}
	var found []Listener
	for _, pid := range pids {
		if there, err := os.Readlink(proc(pid, "ns", "net")); err != nil || there != here {
			continue // another namespace, or it has just ended
		}
		inodes, err := sockets(pid)
		if err != nil {
			return nil, err
		}
		for _, inode := range inodes {
			if address, ok := listening[inode]; ok {
				found = append(found, Listener{Address: address, Pid: pid})
			}
		}
	}
	return found, nil
}

func proc(pid int, parts ...string) string {
	return filepath.Join(append([]string{"/proc", strconv.Itoa(pid)}, parts...)...)
}

// processTree are the stack's processes, their descendants, and all that have its
// directory on their command line.
func (s *Stack) processTree() ([]int, error) {
	pids, err := processesOf(s.Dir)
	if err != nil {
		return nil, err
	}
	for _, p := range s.Processes() {
		pids = append(pids, p.Pid())
	}
	children, err := childrenByParent()
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(pids); i++ { // it grows
		for _, child := range children[pids[i]] {
			if !slices.Contains(pids, child) {
				pids = append(pids, child)
			}
		}
	}
	slices.Sort(pids)
	return slices.Compact(pids), nil
}

func childrenByParent() (map[int][]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("read the list of processes: %w", err)
	}
	children := map[int][]int{}
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(proc(pid, "stat"))
		if err != nil {
			continue // it has just ended
		}
		// The name before may hold spaces and parentheses: pid (name) state parent …
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		if len(fields) < 2 {
			return nil, fmt.Errorf("process %d: %q is not understood", pid, stat)
		}
		parent, err := strconv.Atoi(fields[1])
		if err != nil {
			return nil, fmt.Errorf("process %d: its parent: %w", pid, err)
		}
		children[parent] = append(children[parent], pid)
	}
	return children, nil
}

// sockets are the inodes of the sockets that the process has open.
func sockets(pid int) ([]string, error) {
	files, err := os.ReadDir(proc(pid, "fd"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it has just ended
	}
	if err != nil {
		return nil, fmt.Errorf("read the open files of process %d: %w", pid, err)
	}
	var inodes []string
	for _, file := range files {
		target, err := os.Readlink(proc(pid, "fd", file.Name()))
		if err != nil {
			continue // it was closed meanwhile
		}
		if inode, ok := strings.CutPrefix(target, "socket:["); ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes, nil
}

// listeningSockets are the addresses of all TCP sockets of this network namespace that
// listen, by inode.
func listeningSockets() (map[string]netip.AddrPort, error) {
	found := map[string]netip.AddrPort{}
	for _, table := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		file, err := os.Open(table)
		if err != nil {
			return nil, fmt.Errorf("read the sockets: %w", err)
		}
		lines := bufio.NewScanner(file)
		lines.Scan() // the heading
		for lines.Scan() {
			const local, state, inode, listen = 1, 3, 9, "0A"
			fields := strings.Fields(lines.Text())
			if len(fields) <= inode || fields[state] != listen {
				continue
			}
			if found[fields[inode]], err = parseSocket(fields[local]); err != nil {
				break
			}
		}
		if err := errors.Join(err, lines.Err(), file.Close()); err != nil {
			return nil, fmt.Errorf("read the sockets in %s: %w", table, err)
		}
	}
	return found, nil
}

// parseSocket reads an address as the kernel writes it: words of 32 bits in the machine's
// order, in hexadecimal, and the port.
func parseSocket(text string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(text, ":")
	words, err := hex.DecodeString(host)
	if err != nil || len(words)%4 != 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	number, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is no address: %w", text, err)
	}
	for at := 0; at < len(words); at += 4 {
		binary.NativeEndian.PutUint32(words[at:], binary.BigEndian.Uint32(words[at:]))
	}
	address, ok := netip.AddrFromSlice(words)
	if !ok {
		return netip.AddrPort{}, fmt.Errorf("%q is no address", text)
	}
	return netip.AddrPortFrom(address.Unmap(), uint16(number)), nil
}
