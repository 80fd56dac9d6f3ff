package module

import (
	"context"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// CertPermission allows certificates for hosts in the table, whatever their
// state, and for no other: nobody can make the edge collect certificates.
type CertPermission struct {
	table *table.Table
}

// CaddyModule implements caddy.Module.
func (p *CertPermission) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "tls.permission." + Permission,
		New: func() caddy.Module { return &CertPermission{table: p.table} },
	}
}

// CertificateAllowed implements caddytls.OnDemandPermission.
func (p *CertPermission) CertificateAllowed(_ context.Context, name string) error {
	if _, ok := p.table.Lookup(table.Host(name)); !ok {
		return fmt.Errorf("no app has the host %q: %w", name, caddytls.ErrPermissionDenied)
	}
	return nil
}

var _ caddytls.OnDemandPermission = (*CertPermission)(nil)
