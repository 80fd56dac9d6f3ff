package module

import (
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
)

// SharedStorage is the storage that edges share, as Caddy knows it.
type SharedStorage struct {
	storage certmagic.Storage
}

// CaddyModule implements caddy.Module.
func (s *SharedStorage) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "caddy.storage." + Shared,
		New: func() caddy.Module { return &SharedStorage{storage: s.storage} },
	}
}

// CertMagicStorage implements caddy.StorageConverter.
func (s *SharedStorage) CertMagicStorage() (certmagic.Storage, error) { return s.storage, nil }

var _ caddy.StorageConverter = (*SharedStorage)(nil)
