package module

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/certs"
)

// CertPermission allows certificates for hosts in the table, whatever their
// state, and for no other: nobody can make the edge collect certificates.
type CertPermission struct {
	keeper *certs.Keeper
}

// CaddyModule implements caddy.Module.
func (p *CertPermission) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.permission." + Permission,
		New: func() caddy.Module { return &CertPermission{keeper: p.keeper} },
	}
}

// CertificateAllowed implements caddytls.OnDemandPermission.
func (p *CertPermission) CertificateAllowed(_ context.Context, name string) error {
	if err := p.keeper.Allowed(name); err != nil {
		return fmt.Errorf("%w: %w", caddytls.ErrPermissionDenied, err)
	}
	return nil
}

var _ caddytls.OnDemandPermission = (*CertPermission)(nil)
