// Package netpool makes network namespaces for containers ahead of need, because
// making one while a container starts is slow and is done one at a time.
//
// An agent has one bridge with a subnet of its own. A namespace is one port of it:
// it reaches outward through the machine and is reached from the machine, but
// neither its neighbours nor the machine's own services. It needs root.
package netpool

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
)

const (
	bridgePrefix = "slw"
	// namespaceDir is where the system keeps named network namespaces.
	namespaceDir = "/run/netns"
	defaultSize  = 8
	// remakePause keeps a failing refill from spinning.
	remakePause = 5 * time.Second
)

// ErrFull: every address of the subnet is leased.
var ErrFull = errors.New("every address of the node's container subnet is in use")

// Config says whose pool it is and how large.
type Config struct {
	// Owner names the bridge and chooses the subnet.
	Owner string
	// Subnet is the containers'; the zero value chooses a free one.
	Subnet netip.Prefix
	// Size is how many namespaces are kept ready; 0 means 8.
	Size int
}

// Lease is a namespace in use.
type Lease struct {
	Name string
	Path string
	IP   string
}

// Pool keeps namespaces ready.
type Pool struct {
	bridge  netlink.Link
	subnet  netip.Prefix
	gateway netip.Addr
	size    int
	log     *slog.Logger

	ready   chan Lease
	refill  chan struct{}
	destroy chan string
	cancel  context.CancelFunc
	done    sync.WaitGroup

	mu     sync.Mutex
	leased map[string]time.Time // by name, since when
	used   map[netip.Addr]bool
	next   netip.Addr
}

// New sets the bridge and its firewall up, adopts the namespaces that an earlier
// process of the same owner left, and begins to fill the pool. It fails when the
// process may not do this or the kernel cannot.
func New(cfg Config, log *slog.Logger) (*Pool, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces made ahead need root")
	}
	if err := shareDirectory(namespaceDir); err != nil {
		return nil, err
	}
	name := BridgeName(bridgePrefix, cfg.Owner)
	subnet := cfg.Subnet
	if !subnet.IsValid() {
		var err error
		if subnet, err = FreeSubnet(name, cfg.Owner); err != nil {
			return nil, fmt.Errorf("choose the containers' subnet: %w", err)
		}
	}
	subnet = subnet.Masked()
	gateway := subnet.Addr().Next()
	bridge, err := ensureBridge(name, gateway, subnet.Bits())
	if err != nil {
		return nil, err
	}
	if err := ensureFirewall(name, subnet); err != nil {
		return nil, err
	}
	size := cfg.Size
	if size <= 0 {
		size = defaultSize
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{
		bridge: bridge, subnet: subnet, gateway: gateway, size: size, log: log,
		ready: make(chan Lease, size), refill: make(chan struct{}, 1), destroy: make(chan string, 256), cancel: cancel,
		leased: map[string]time.Time{}, used: map[netip.Addr]bool{gateway: true}, next: gateway.Next(),
	}
	if err := p.adopt(); err != nil {
		cancel()
		return nil, err
	}
	p.done.Add(2)
	go p.keepFull(ctx)
	go p.keepClean(ctx)
	return p, nil
}

// Subnet is the containers'.
func (p *Pool) Subnet() netip.Prefix { return p.subnet }

// Check fails when this pool cannot have leased the namespace of that name with that
// address: the names of both come back to it from outside.
func (p *Pool) Check(name, ip string) error {
	addr, err := addressNamed(p.bridge.Attrs().Name, name, ip)
	if err != nil {
		return err
	}
	if !p.subnet.Contains(addr) || addr == p.gateway || addr == p.subnet.Addr() {
		return fmt.Errorf("%s is no container's address in %s", addr, p.subnet)
	}
	return nil
}

// Check is Pool.Check where there is no pool any more: it knows the owner's names, and
// of the subnet only where all pools' are.
func Check(owner, name, ip string) error {
	addr, err := addressNamed(BridgeName(bridgePrefix, owner), name, ip)
	if err != nil {
		return err
	}
	if b := addr.As4(); b[0] != subnetsFirst || b[1] < subnetsSecond || b[1] >= subnetsSecond+subnetsSeconds {
		return fmt.Errorf("%s is no container's address", addr)
	}
	return nil
}

func addressNamed(bridge, name, ip string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(ip)
	if err != nil {
		return netip.Addr{}, err
	}
	if !addr.Is4() || name != bridge+"-"+addr.String() {
		return netip.Addr{}, fmt.Errorf("no namespace of %s with the address %s is named %q", bridge, addr, name)
	}
	return addr, nil
}

// adopt counts what an earlier process left as leased long ago: Retain destroys
// what no container needs.
func (p *Pool) adopt() error {
	entries, err := os.ReadDir(namespaceDir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the network namespaces: %w", err)
	}
	for _, e := range entries {
		text, ours := strings.CutPrefix(e.Name(), p.prefix())
		if !ours {
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil {
			continue
		}
		p.leased[e.Name()] = time.Time{}
		p.used[addr] = true
	}
	return nil
}

func (p *Pool) prefix() string { return p.bridge.Attrs().Name + "-" }

// Lease gives a ready namespace, or makes one when the pool is empty.
func (p *Pool) Lease(ctx context.Context) (Lease, error) {
	defer p.wantRefill()
	select {
	case l := <-p.ready:
		p.mark(l.Name)
		return l, nil
	default:
	}
	var errs error
	// Each try takes another address: one may still be held by a dying container.
	for range 3 {
		if err := ctx.Err(); err != nil {
			return Lease{}, errors.Join(errs, err)
		}
		l, err := p.make()
		if err == nil {
			p.mark(l.Name)
			return l, nil
		}
		errs = errors.Join(errs, err)
	}
	return Lease{}, errs
}

func (p *Pool) mark(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leased[name] = time.Now()
}

func (p *Pool) wantRefill() {
	select {
	case p.refill <- struct{}{}:
	default:
	}
}

func (p *Pool) make() (Lease, error) {
	addr, err := p.takeAddress()
	if err != nil {
		return Lease{}, err
	}
	name := p.prefix() + addr.String()
	if err := makeNamespace(name, p.bridge, addr, p.gateway, p.subnet.Bits()); err != nil {
		p.giveAddress(addr)
		return Lease{}, err
	}
	return Lease{Name: name, Path: filepath.Join(namespaceDir, name), IP: addr.String()}, nil
}

// takeAddress goes round the subnet, so that an address rests before it is used anew.
func (p *Pool) takeAddress() (netip.Addr, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.next
	for {
		addr := p.next
		p.next = p.next.Next()
		// The subnet's last address is its broadcast address.
		if !p.subnet.Contains(p.next.Next()) {
			p.next = p.gateway.Next()
		}
		if !p.used[addr] {
			p.used[addr] = true
			return addr, nil
		}
		if p.next == first {
			return netip.Addr{}, ErrFull
		}
	}
}

func (p *Pool) giveAddress(addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.used, addr)
}

// Release destroys a leased namespace, in the background. Releasing what is not
// leased is no error.
func (p *Pool) Release(name string) {
	p.mu.Lock()
	since, ok := p.leased[name]
	delete(p.leased, name)
	p.mu.Unlock()
	if !ok {
		return
	}
	select {
	case p.destroy <- name:
	default:
		// The queue is bounded; Retain comes back to what does not fit.
		p.mu.Lock()
		p.leased[name] = since
		p.mu.Unlock()
	}
}

// Retain destroys the leased namespaces that are not named and were leased before
// the given time: their containers are gone.
func (p *Pool) Retain(names map[string]bool, before time.Time) {
	p.mu.Lock()
	var gone []string
	for name, since := range p.leased {
		if !names[name] && since.Before(before) {
			gone = append(gone, name)
		}
	}
	p.mu.Unlock()
	for _, name := range gone {
		p.Release(name)
	}
}

func (p *Pool) keepFull(ctx context.Context) {
	defer p.done.Done()
	for {
		for len(p.ready) < p.size && ctx.Err() == nil {
			l, err := p.make()
			if err != nil {
				p.log.Warn("a network namespace could not be made ahead", "error", err)
				select {
				case <-ctx.Done():
				case <-time.After(remakePause):
				}
				break
			}
			p.ready <- l
		}
		select {
		case <-ctx.Done():
			return
		case <-p.refill:
		}
	}
}

func (p *Pool) keepClean(ctx context.Context) {
	defer p.done.Done()
	for {
		select {
		case <-ctx.Done():
			return
		case name := <-p.destroy:
			p.destroyNow(name)
		}
	}
}

func (p *Pool) destroyNow(name string) {
	addr, err := netip.ParseAddr(strings.TrimPrefix(name, p.prefix()))
	if err != nil {
		p.log.Warn("a network namespace has a name that is not the pool's", "namespace", name, "error", err)
		return
	}
	if err := destroyNamespace(name, vethName(p.bridge.Attrs().Name, addr)); err != nil {
		p.log.Warn("a network namespace could not be removed", "namespace", name, "error", err)
	}
	p.giveAddress(addr)
}

// Close stops filling and destroys what is ready but not leased. Leased namespaces,
// the bridge and its firewall stay: containers use them.
func (p *Pool) Close() {
	p.cancel()
	p.done.Wait()
	for {
		select {
		case l := <-p.ready:
			p.destroyNow(l.Name)
		case name := <-p.destroy:
			p.destroyNow(name)
		default:
			return
		}
	}
}

// Destroy is Close, and takes the bridge and its firewall away too unless a
// namespace is still leased.
func (p *Pool) Destroy() error {
	p.Close()
	p.mu.Lock()
	leased := len(p.leased)
	p.mu.Unlock()
	if leased > 0 {
		return nil
	}
	return errors.Join(removeFirewall(p.bridge.Attrs().Name), netlink.LinkDel(p.bridge))
}
