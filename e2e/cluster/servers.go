package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/libs/natsconn"
)

const size = 3

// servers are three NATS servers that run with the configuration in
// deployments/cluster.
type servers struct {
	// dir has what all clusters share, own what is this one's.
	dir, own string
	binary   string
	network  *network
	running  [size]*exec.Cmd
}

// caFile is what clients must trust.
func caFile(dir string) string { return filepath.Join(dir, "ca.crt") }

// configure writes each server's configuration below dir, in a new directory whose
// name begins with own.
func configure(dir, own string, w *network) (*servers, error) {
	binary, err := stack.NATSServer()
	if err != nil {
		return nil, err
	}
	root, err := stack.Repository()
	if err != nil {
		return nil, err
	}
	shipped, err := os.ReadFile(filepath.Join(root, "deployments", "cluster", "nats.conf"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's configuration: %w", err)
	}
	// A test that is run again begins with empty servers.
	home, err := os.MkdirTemp(dir, own+"-")
	if err != nil {
		return nil, fmt.Errorf("configure the servers: %w", err)
	}
	s := &servers{dir: dir, own: home, binary: binary, network: w}
	keys, err := natsconn.EnsureKeys(s.keys())
	if err != nil {
		return nil, err
	}
	if err := makeCertificates(dir); err != nil {
		return nil, fmt.Errorf("make certificates: %w", err)
	}
	for n := range size {
		if err := os.MkdirAll(s.home(n), 0o700); err != nil {
			return nil, fmt.Errorf("configure server %d: %w", n, err)
		}
		for name, content := range map[string]string{"nats.conf": string(shipped), "users.conf": keys.Users(), "site.conf": s.site(n)} {
			if err := os.WriteFile(filepath.Join(s.home(n), name), []byte(content), 0o600); err != nil {
				return nil, fmt.Errorf("configure server %d: %w", n, err)
			}
		}
	}
	return s, nil
}

func (s *servers) home(n int) string { return filepath.Join(s.own, name(n)) }
func (s *servers) keys() string      { return filepath.Join(s.dir, "keys") }
func name(n int) string              { return fmt.Sprintf("nats-%d", n+1) }

// site is site.conf of that server.
func (s *servers) site(n int) string {
	var routes []string
	for i := range size {
		routes = append(routes, fmt.Sprintf("%q", "tls://"+address(i)+":6222"))
	}
	pair := fmt.Sprintf("cert_file: %q, key_file: %q", filepath.Join(s.dir, "server.crt"), filepath.Join(s.dir, "server.key"))
	return fmt.Sprintf("NAME: %q\nSTORE: %q\nROUTES: [%s]\nTLS: { %s }\nROUTE_TLS: { %s, ca_file: %q, verify: true }\n",
		name(n), filepath.Join(s.home(n), "store"), strings.Join(routes, ", "), pair, pair, caFile(s.dir))
}

// url is how clients reach the servers, the one with that number first.
func (s *servers) url(first int) string {
	var urls []string
	for i := range size {
		urls = append(urls, "tls://"+address((first+i)%size)+":4222")
	}
	return strings.Join(urls, ",")
}

// start starts the server with that number, again or for the first time.
func (s *servers) start(n int) error {
	command := exec.Command(s.binary, "-c", filepath.Join(s.home(n), "nats.conf"))
	log, err := os.OpenFile(s.log(n), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start server %d: %w", n, err)
	}
	defer log.Close() // the process has its own
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := s.network.start(n, command); err != nil {
		return fmt.Errorf("start server %d: %w", n, err)
	}
	s.running[n] = command
	return nil
}

func (s *servers) log(n int) string { return filepath.Join(s.home(n), "log") }

// kill ends the server as a crash of its machine would.
func (s *servers) kill(n int) error {
	if s.running[n] == nil {
		return nil
	}
	if err := s.running[n].Process.Kill(); err != nil {
		return fmt.Errorf("kill server %d: %w", n, err)
	}
	_ = s.running[n].Wait() // it was killed: that is what it says
	s.running[n] = nil
	return nil
}

func (s *servers) stop() error {
	var failures []error
	for n := range size {
		failures = append(failures, s.kill(n))
	}
	return errors.Join(failures...)
}

// number is that of the server with that name.
func number(serverName string) (int, error) {
	for n := range size {
		if name(n) == serverName {
			return n, nil
		}
	}
	return 0, fmt.Errorf("no server is named %q", serverName)
}

// makeCertificates makes a CA, and one certificate for all servers' addresses, once:
// a process reads the CAs that it trusts only once.
func makeCertificates(dir string) error {
	if _, err := os.Stat(caFile(dir)); err == nil {
		return nil
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a cluster under test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "nats"}, NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for n := range size {
		leaf.IPAddresses = append(leaf.IPAddresses, net.ParseIP(address(n)))
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		writePEM(caFile(dir), "CERTIFICATE", caDER),
		writePEM(filepath.Join(dir, "server.crt"), "CERTIFICATE", leafDER),
		writePEM(filepath.Join(dir, "server.key"), "PRIVATE KEY", keyDER),
	)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
