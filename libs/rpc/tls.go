package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// connectionAge is after how long a connection is made anew, so that a certificate
// that has expired does not live on in it.
const connectionAge = time.Hour

// TLS is by what a service proves who it is, and whom it believes: mutual TLS 1.3 with
// certificates whose DNS name is the service's. The zero value is none. The files are
// read for each connection, so that renewed ones need no restart.
type TLS struct {
	// Service is who we are, e.g. "scheduler".
	Service string
	// CA is a PEM file with the authorities to believe.
	CA string
	// Identity is a PEM file with our certificate and its key.
	Identity string
}

// On reports whether any of it is configured.
func (t TLS) On() bool { return t.CA != "" || t.Identity != "" }

// Validate says why others would not believe us, or we them, at that time: a file is
// missing, of another service, of another authority, or has expired. TLS that is not
// On is valid.
func (t TLS) Validate(now time.Time) error {
	switch {
	case !t.On():
		return nil
	case t.CA == "":
		return errors.New("--tls-identity without --tls-ca: give both, or neither when every service is on this machine")
	case t.Identity == "":
		return errors.New("--tls-ca without --tls-identity: give both, or neither when every service is on this machine")
	}
	pair, roots, err := t.load()
	if err != nil {
		return err
	}
	for _, use := range []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: t.Service, Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{use}})
		if err != nil {
			return fmt.Errorf("--tls-identity: %s does not prove to others that this is %q: %w", t.Identity, t.Service, err)
		}
	}
	return nil
}

func (t TLS) load() (tls.Certificate, *x509.CertPool, error) {
	text, err := os.ReadFile(t.CA)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("--tls-ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return tls.Certificate{}, nil, fmt.Errorf("--tls-ca: %s holds no certificate in PEM", t.CA)
	}
	pair, err := tls.LoadX509KeyPair(t.Identity, t.Identity)
	if err != nil {
		return tls.Certificate{}, nil, fmt.Errorf("--tls-identity: %s must hold a certificate and its key in PEM: %w", t.Identity, err)
	}
	return pair, roots, nil
}

// serverOptions has a server speak with the callers only.
func (t TLS) serverOptions(callers []string) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(mutual{tls: t}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionAge: connectionAge}),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if err := t.admit(ctx, callers); err != nil {
				return nil, err
			}
			return next(ctx, req)
		}),
		grpc.ChainStreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			if err := t.admit(stream.Context(), callers); err != nil {
				return err
			}
			return next(srv, stream)
		}),
	}
}

// admit refuses a call of somebody who is a service of the platform but has no business
// here.
func (t TLS) admit(ctx context.Context, callers []string) error {
	from, _ := peer.FromContext(ctx)
	if from == nil {
		return status.Error(codes.Unauthenticated, "the caller did not say who it is")
	}
	info, ok := from.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.VerifiedChains) == 0 {
		return status.Error(codes.Unauthenticated, "the caller did not prove who it is")
	}
	names := info.State.VerifiedChains[0][0].DNSNames
	if !slices.ContainsFunc(names, func(name string) bool { return slices.Contains(callers, name) }) {
		return status.Errorf(codes.PermissionDenied, "%s may not call %s: only %s may",
			strings.Join(names, ", "), t.Service, strings.Join(callers, " and "))
	}
	return nil
}

// mutual are grpc's own TLS credentials, made for each connection from the files that
// are there now.
type mutual struct {
	tls TLS
	// peer is the service that a client calls; empty on a server.
	peer string
}

func (m mutual) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pair, roots, err := m.tls.load()
	if err != nil {
		return nil, nil, err
	}
	own := credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: m.peer,
	})
	return own.ClientHandshake(ctx, m.peer, conn)
}

func (m mutual) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pair, roots, err := m.tls.load()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(&tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, SessionTicketsDisabled: true,
	}).ServerHandshake(conn)
}

func (m mutual) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (m mutual) Clone() credentials.TransportCredentials { return m }

// OverrideServerName is not used by anybody: who the peer is, is not what it is called.
func (m mutual) OverrideServerName(string) error {
	return errors.New("the name of the other service is fixed")
}

// NewServer makes a server as the function NewServer does, which answers only the
// services named callers. Without TLS it cannot tell them apart and answers everybody:
// let it listen on Loopback only.
func (t TLS) NewServer(log *slog.Logger, callers ...string) *Server {
	if !t.On() {
		return NewServer(log)
	}
	return NewServer(log, t.serverOptions(callers)...)
}

// Dial makes a client of that service at target (host:port) as the function Dial does.
// Without TLS it refuses a target beyond this machine.
func (t TLS) Dial(service, target string) (*grpc.ClientConn, error) {
	if t.On() {
		return Dial(target, grpc.WithTransportCredentials(mutual{tls: t, peer: service}))
	}
	if !Loopback(target) {
		return nil, fmt.Errorf("%s at %s is beyond this machine, and calls to it would not be sealed: give --tls-ca and --tls-identity (see slipwayd certs)", service, target)
	}
	return Dial(target)
}

// Loopback reports whether host:port can be reached from this machine only.
func Loopback(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
