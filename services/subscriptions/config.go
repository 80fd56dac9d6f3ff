package subscriptions

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/slipway-paas/slipway/libs/rpc"
)

// DefaultListen is where NATS clients connect when nothing else is said.
const DefaultListen = "127.0.0.1:4223"

// Config is what an operator of the platform can set.
type Config struct {
	// Listen is where outsiders' NATS clients connect; nobody can when it is empty.
	Listen string `koanf:"listen" usage:"host:port where NATS clients of organizations read their events; empty turns it off"`
	// TLSCert and TLSKey are read again for each connection.
	TLSCert string `koanf:"tls-cert" usage:"PEM file with the certificate chain for those clients; needed when --subscriptions-listen is open to other machines"`
	TLSKey  string `koanf:"tls-key" usage:"PEM file with its key"`
	// Leaf is where the platform's NATS servers let leaf nodes join, and LeafKey the
	// file with the key of that role.
	Leaf    string `koanf:"leaf" usage:"where leaf nodes join NATS servers of your own: tls://host:port, several with commas between"`
	LeafKey string `koanf:"leaf-key" usage:"file with the NATS key of the role subscriptions"`
}

// DefaultConfig is what holds where nothing else is said.
func DefaultConfig() Config { return Config{Listen: DefaultListen} }

// On reports whether clients can connect at all.
func (c Config) On() bool { return c.Listen != "" }

// Validate says everything that is wrong with how clients connect.
func (c Config) Validate() error {
	if !c.On() {
		return nil
	}
	var errs []error
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--subscriptions-listen: %q must be host:port", c.Listen))
	} else if !rpc.Loopback(c.Listen) && c.TLSCert == "" {
		errs = append(errs, fmt.Errorf("--subscriptions-listen: %s is open to other machines: give it a certificate with --subscriptions-tls-cert and --subscriptions-tls-key, or listen on 127.0.0.1", c.Listen))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("--subscriptions-tls-cert, --subscriptions-tls-key: one needs the other"))
	} else if c.TLSCert != "" {
		if _, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey); err != nil {
			errs = append(errs, fmt.Errorf("--subscriptions-tls-cert, --subscriptions-tls-key: %w", err))
		}
	}
	if _, err := c.leaves(); c.Leaf != "" && err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (c Config) leaves() ([]*url.URL, error) {
	var all []*url.URL
	for one := range strings.SplitSeq(c.Leaf, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" {
			return nil, fmt.Errorf("--subscriptions-leaf: %q must be tls://host:port", c.Leaf)
		}
		all = append(all, u)
	}
	return all, nil
}

// tls is nil without a certificate.
func (c Config) tls() *tls.Config {
	if c.TLSCert == "" {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
			return &pair, err
		},
	}
}
