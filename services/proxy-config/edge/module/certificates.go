package module

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/certs"
)

// Certificates gives handshakes the certificates that the keeper has.
type Certificates struct {
	// Internal is set where the CA is Caddy's own.
	Internal bool `json:"internal,omitempty"`

	keeper *certs.Keeper
}

// CaddyModule implements caddy.Module.
func (c *Certificates) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.get_certificate." + KeptCertificates,
		New: func() caddy.Module { return &Certificates{keeper: c.keeper} },
	}
}

// Provision implements caddy.Provisioner.
func (c *Certificates) Provision(ctx caddy.Context) error {
	var internal certmagic.Issuer
	if c.Internal {
		issuer, err := ctx.LoadModuleByID("tls.issuance.internal", json.RawMessage("{}"))
		if err != nil {
			return fmt.Errorf("setting up the CA of the edge's own: %w", err)
		}
		internal = issuer.(certmagic.Issuer)
	}
	if _, err := registerOnce(ctx.GetMetricsRegistry(), c.keeper); err != nil {
		return err
	}
	return c.keeper.Open(ctx.Storage(), internal, ctx.Logger())
}

// GetCertificate implements certmagic.Manager. It never leaves a host to CertMagic's own
// ways of getting certificates during a handshake.
func (c *Certificates) GetCertificate(ctx context.Context, hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.keeper.Certificate(ctx, hello.ServerName)
}

var (
	_ caddy.Provisioner = (*Certificates)(nil)
	_ certmagic.Manager = (*Certificates)(nil)
)
