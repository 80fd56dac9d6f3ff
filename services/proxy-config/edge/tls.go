package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"

	"github.com/caddyserver/certmagic"
	"github.com/nats-io/nats.go"

	"github.com/slipway-paas/slipway/libs/edgetls"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/certstore"
	"github.com/slipway-paas/slipway/services/proxy-config/edge/module"
)

// altSvcAge is how long clients remember HTTP/3, in seconds: as Caddy says it.
const altSvcAge = 2592000

// secured are the handlers that HTTPS and the way to it need.
func (c Config) secured(tls bool) []object {
	if !tls {
		if !c.servesHTTPS() || !c.Redirects() {
			return nil
		}
		return []object{{"handler": module.HandlerRedirect, "port": c.publicHTTPSPort()}}
	}
	var chain []object
	if c.PublicHTTPSPort != 0 {
		// Caddy names the port that it listens on.
		chain = append(chain, object{"handler": "headers", "response": object{"set": object{
			"Alt-Svc": []string{`h3=":` + strconv.Itoa(c.PublicHTTPSPort) + `"; ma=` + strconv.Itoa(altSvcAge)},
		}}})
	}
	if c.HSTS > 0 {
		chain = append(chain, object{"handler": module.HandlerHSTS, "max_age": module.HSTSFor(c.HSTS)})
	}
	return chain
}

// certificates are the apps of Caddy that handshakes need. Issuers are named here for the
// answers to challenges; certificates are got by the keeper.
func (c Config) certificates(apps object) {
	issuer := object{"module": "internal"}
	if c.TLS == edgetls.ACME {
		issuer = object{"module": "acme", "ca": c.ACME.Directory}
		if c.ACME.CARoot != "" {
			issuer["trusted_roots_pem_files"] = []string{c.ACME.CARoot}
		}
	} else {
		apps["pki"] = object{"certificate_authorities": object{"local": object{
			"name": "Slipway Local Authority", "install_trust": false,
		}}}
	}
	apps["tls"] = object{"automation": object{
		"on_demand": object{"permission": object{"module": module.Permission}},
		"policies": []object{{
			"on_demand": true,
			"issuers":   []object{issuer},
			"get_certificate": []object{
				{"via": module.UnknownHosts},
				{"via": module.KeptCertificates, "internal": c.TLS == edgetls.Internal},
			},
		}},
	}}
}

// storage is where Caddy keeps what it keeps. The CA of the edge's own must be there at
// each start, with NATS or without.
func (c Config) storage() object {
	if c.servesHTTPS() && c.TLS == edgetls.ACME {
		return object{"module": module.Shared}
	}
	return object{"module": "file_system", "root": filepath.Join(c.DataDir, "caddy")}
}

// sharedStorage is what edges share; nil where each has its own.
func (c Config) sharedStorage(id string, nc *nats.Conn, log *slog.Logger) (certmagic.Storage, error) {
	if !c.servesHTTPS() || c.TLS != edgetls.ACME {
		return nil, nil
	}
	file := c.CertificateKey
	if file == "" {
		file = filepath.Join(c.DataDir, "certificates.key")
	}
	keys, err := seal.Master(file)
	if err != nil {
		return nil, fmt.Errorf("--certificate-key: %w", err)
	}
	return certstore.New(certstore.Config{
		NATS: nc, Box: seal.NewBox(keys), Dir: filepath.Join(c.DataDir, "certificates"), Owner: id, Log: log,
	})
}

// checkStorage keeps an edge from starting that could read none of the others'
// certificates. With NATS away nothing can be said.
func checkStorage(ctx context.Context, storage certmagic.Storage, log *slog.Logger) error {
	shared, ok := storage.(*certstore.Storage)
	if !ok {
		return nil
	}
	err := shared.Check(ctx)
	if errors.Is(err, certstore.ErrOtherKey) {
		return fmt.Errorf("--certificate-key: %w", err)
	}
	if err != nil {
		log.Warn("the certificates that edges share cannot be read now, serving those on disk", "error", err)
	}
	return nil
}
