// Package dnstest is a DNS server on loopback whose records tests set while it runs. It
// answers for every name: what it has no records of does not exist.
package dnstest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// Server answers over UDP and TCP on one port.
type Server struct {
	// Address is its host:port.
	Address string

	mu      sync.Mutex
	records map[string][]dns.RR
	refused map[string]int
	asked   map[string]int
}

// Start runs one until the test ends.
func Start(t testing.TB) *Server {
	t.Helper()
	s := &Server{records: map[string][]dns.RR{}, refused: map[string]int{}, asked: map[string]int{}}
	packets, stream := listen(t)
	s.Address = packets.LocalAddr().String()
	for _, server := range []*dns.Server{{PacketConn: packets, Handler: s}, {Listener: stream, Handler: s}} {
		started, ended := make(chan struct{}), make(chan error, 1)
		server.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- server.ActivateAndServe() }()
		select {
		case <-started:
		case err := <-ended:
			t.Fatalf("start a DNS server: %v", err)
		}
		t.Cleanup(func() {
			if err := server.Shutdown(); err != nil {
				t.Errorf("stop the DNS server: %v", err)
			}
			<-ended
		})
	}
	return s
}

// listen takes one port for both: a free one of UDP may be taken of TCP.
func listen(t testing.TB) (net.PacketConn, net.Listener) {
	t.Helper()
	for range 20 {
		stream, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatalf("listen: %v", err)
		}
		packets, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", stream.Addr().String())
		if err == nil {
			return packets, stream
		}
		if err := stream.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
	}
	t.Fatal("no port is free for both UDP and TCP")
	return nil, nil
}

// Set replaces a name's records by these, written as in a zone file without the name,
// like "CNAME shop.apps.test." or "A 192.0.2.1"; none makes the name exist no more.
func (s *Server) Set(t testing.TB, name string, records ...string) {
	t.Helper()
	var all []dns.RR
	for _, r := range records {
		rr, err := dns.NewRR(dns.Fqdn(name) + " 1 IN " + r)
		if err != nil {
			t.Fatalf("the record %q of %s: %v", r, name, err)
		}
		all = append(all, rr)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refused, dns.CanonicalName(name))
	s.records[dns.CanonicalName(name)] = all
	if len(all) == 0 {
		delete(s.records, dns.CanonicalName(name))
	}
}

// Fail answers all questions about a name with SERVFAIL, until it is Set.
func (s *Server) Fail(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[dns.CanonicalName(name)] = dns.RcodeServerFailure
}

// Asked is how many questions there were about a name.
func (s *Server) Asked(name string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.asked[dns.CanonicalName(name)]
}

// ServeDNS implements dns.Handler.
func (s *Server) ServeDNS(w dns.ResponseWriter, question *dns.Msg) {
	answer := new(dns.Msg).SetReply(question)
	answer.RecursionAvailable = true
	if len(question.Question) == 1 {
		s.answer(answer, question.Question[0])
	}
	if w.LocalAddr().Network() == "udp" {
		size := dns.MinMsgSize
		if o := question.IsEdns0(); o != nil {
			size = int(o.UDPSize())
		}
		answer.Truncate(size)
	}
	// A client that is gone has no use for it.
	_ = w.WriteMsg(answer)
}

// answer follows aliases as resolvers do, and fails as they do where those go round.
func (s *Server) answer(answer *dns.Msg, q dns.Question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := dns.CanonicalName(q.Name)
	s.asked[at]++
	for range 16 {
		if code, refused := s.refused[at]; refused {
			answer.Rcode, answer.Answer = code, nil
			return
		}
		records, known := s.records[at]
		if !known {
			if !s.above(at) {
				answer.Rcode = dns.RcodeNameError
			}
			return
		}
		next := ""
		for _, rr := range records {
			switch alias, isAlias := rr.(*dns.CNAME); {
			case rr.Header().Rrtype == q.Qtype:
				answer.Answer = append(answer.Answer, rr)
			case isAlias:
				answer.Answer, next = append(answer.Answer, rr), dns.CanonicalName(alias.Target)
			}
		}
		if next == "" {
			return
		}
		at = next
	}
	answer.Rcode, answer.Answer = dns.RcodeServerFailure, nil
}

// above reports whether there are names below one that has no records itself: it exists.
func (s *Server) above(name string) bool {
	for known := range s.records {
		if strings.HasSuffix(known, "."+name) {
			return true
		}
	}
	return false
}
