package rpc_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/slipway-paas/slipway/libs/ca"
	"github.com/slipway-paas/slipway/libs/rpc"
)

// house is an authority, and the services it knows.
type house struct {
	t *testing.T
	*ca.Authority
}

func newHouse(t *testing.T) house {
	t.Helper()
	a, err := ca.Open(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return house{t, a}
}

func (h house) service(name string) rpc.TLS {
	h.t.Helper()
	if err := h.Issue(name, time.Hour, time.Now()); err != nil {
		h.t.Fatal(err)
	}
	return rpc.TLS{Service: name, CA: h.CertFile(), Identity: h.IdentityFile(name)}
}

// serve has the service answer those callers and returns its address.
func serve(t *testing.T, as rpc.TLS, callers ...string) string {
	t.Helper()
	server := as.NewServer(discard, callers...)
	grpc_testing.RegisterTestServiceServer(server, parrot{})
	server.SetServing(true)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.ServeUntil(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// call calls that service at the address once, unary, by stream and for its health, and
// returns the first error.
func call(t *testing.T, as rpc.TLS, service, address string) error {
	t.Helper()
	conn, err := as.Dial(service, address)
	if err != nil {
		t.Fatal(err)
	}
	return callOver(t, conn)
}

func callOver(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client := grpc_testing.NewTestServiceClient(conn)
	_, unary := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{})
	stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{
		ResponseParameters: make([]*grpc_testing.ResponseParameters, 1),
	})
	if err == nil {
		_, err = stream.Recv()
	}
	_, health := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{})
	if (unary == nil) != (err == nil) || (unary == nil) != (health == nil) {
		t.Errorf("a unary call gave %v, a stream %v, health %v", unary, err, health)
	}
	return unary
}

func TestServicesThatProveWhoTheyAreTalk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address := serve(t, h.service("billing"), "gateway", "scheduler")
	for _, name := range []string{"gateway", "scheduler"} {
		if err := call(t, h.service(name), "billing", address); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAServiceThatHasNoBusinessIsRefusedByName(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address := serve(t, h.service("identity"), "gateway")
	err := call(t, h.service("billing"), "identity", address)
	if status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "billing may not call identity: only gateway may") {
		t.Errorf("billing called identity: %v", err)
	}
}

func TestStrangersAreNotHeard(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	address := serve(t, h.service("scheduler"), "gateway")

	stranger := newHouse(t).service("gateway")
	stranger.CA = h.CertFile() // it believes us; we do not believe it
	if err := call(t, stranger, "scheduler", address); status.Code(err) != codes.Unavailable {
		t.Errorf("a gateway of another authority: %v", err)
	}
	if err := call(t, rpc.TLS{Service: "gateway"}, "scheduler", address); status.Code(err) != codes.Unavailable {
		t.Errorf("a gateway without a certificate, in plain text: %v", err)
	}
	expired := rpc.TLS{Service: "gateway", CA: h.CertFile(), Identity: h.IdentityFile("gateway")}
	if err := h.Issue("gateway", time.Minute, time.Now().Add(-2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := call(t, expired, "scheduler", address); status.Code(err) != codes.Unavailable {
		t.Errorf("a gateway whose certificate has expired: %v", err)
	}
}

func TestACallerIsNotTakenInByAnotherServiceAtTheAddress(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	gateway := h.service("gateway")
	if err := call(t, gateway, "identity", serve(t, h.service("billing"), "gateway")); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "identity") {
		t.Errorf("billing passed for identity: %v", err)
	}
	if err := call(t, gateway, "identity", serve(t, newHouse(t).service("identity"), "gateway")); status.Code(err) != codes.Unavailable {
		t.Errorf("another authority's identity passed for ours: %v", err)
	}
	if err := call(t, gateway, "identity", serve(t, rpc.TLS{Service: "identity"}, "gateway")); status.Code(err) != codes.Unavailable {
		t.Errorf("a server in plain text passed for identity: %v", err)
	}
}

func TestARenewedCertificateNeedsNoRestart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	scheduler, gateway := h.service("scheduler"), h.service("gateway")
	// Both are out of date now, with server and client made already.
	address := serve(t, scheduler, "gateway")
	conn, err := gateway.Dial("scheduler", address)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"scheduler", "gateway"} {
		if err := h.Issue(name, time.Minute, time.Now().Add(-2*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if err := call(t, gateway, "scheduler", address); err == nil {
		t.Fatal("expired certificates were taken")
	}
	h.service("scheduler")
	h.service("gateway")
	if err := callOver(t, conn); err != nil {
		t.Errorf("after the renewal: %v", err)
	}
}

func TestHalfOfTLSIsRefusedInWords(t *testing.T) {
	t.Parallel()
	h, other := newHouse(t), newHouse(t)
	whole := h.service("billing")
	if err := whole.Validate(time.Now()); err != nil {
		t.Error(err)
	}
	if err := (rpc.TLS{Service: "billing"}).Validate(time.Now()); err != nil {
		t.Errorf("none of it: %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty.pem")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]rpc.TLS{
		"--tls-identity without --tls-ca":                   {Service: "billing", Identity: whole.Identity},
		"--tls-ca without --tls-identity":                   {Service: "billing", CA: whole.CA},
		"no such file":                                      {Service: "billing", CA: whole.CA + "x", Identity: whole.Identity},
		"holds no certificate":                              {Service: "billing", CA: empty, Identity: whole.Identity},
		"must hold a certificate and its key":               {Service: "billing", CA: whole.CA, Identity: whole.CA},
		`does not prove to others that this is "scheduler"`: {Service: "scheduler", CA: whole.CA, Identity: whole.Identity},
		"unknown authority":                                 {Service: "billing", CA: other.CertFile(), Identity: whole.Identity},
	} {
		if err := c.Validate(time.Now()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
	if err := whole.Validate(time.Now().Add(2 * time.Hour)); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
}

func TestPlainTextDoesNotLeaveTheMachine(t *testing.T) {
	t.Parallel()
	for target, inside := range map[string]bool{
		"127.0.0.1:9101": true, "[::1]:9101": true, "localhost:9101": true, "127.8.8.8:1": true,
		"10.0.0.2:9101": false, "scheduler:9101": false, ":9101": false, "0.0.0.0:9101": false, "[::]:9101": false,
		"127.0.0.1.example.com:9101": false, "dns:///127.0.0.1:9101": false, "": false,
	} {
		conn, err := rpc.TLS{Service: "gateway"}.Dial("scheduler", target)
		if err == nil {
			conn.Close()
		}
		if (err == nil) != inside || rpc.Loopback(target) != inside {
			t.Errorf("%q: %v", target, err)
		}
		if err != nil && !strings.Contains(err.Error(), "--tls-identity") {
			t.Errorf("%q: the error does not say what to do: %v", target, err)
		}
	}
}
