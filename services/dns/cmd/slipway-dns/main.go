// Command slipway-dns keeps the records of the DNS zones that the platform holds.
package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/dns"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	BaseDomain string         `koanf:"base-domain" default:"apps.localhost" usage:"domain that apps live under"`
	Cloudflare dns.Cloudflare `koanf:"cloudflare"`
	DNS        dns.Config     `koanf:"dns"`
	MasterKey  string         `koanf:"master-key" usage:"file with the key that wraps data keys; made when it is not there"`
	MasterKeys string         `koanf:"master-keys" secret:"true" usage:"the keys themselves instead of a file, for the environment: base64 of 32 bytes each, newest first, with commas"`
}

func main() {
	var c settings
	service.Main("slipway-dns", version, &c, func(ctx context.Context, p *service.Process) error {
		if c.MasterKey == "" && c.MasterKeys == "" {
			return errors.New("--master-key or SLIPWAY_MASTER_KEYS is needed")
		}
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		keys, err := js.KeyValue(ctx, subjects.BucketKeys)
		if err != nil {
			return fmt.Errorf("open the bucket of data keys: %w", err)
		}
		sealer, err := seal.Unlock(ctx, seal.From{File: c.MasterKey, Keys: c.MasterKeys}, keys)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		s, err := dns.New(c.DNS.With(c.BaseDomain, c.Cloudflare), dns.Deps{
			Store: events, NATS: nc, JetStream: js, Seal: sealer, Log: p.Log, Metrics: p.Observer.Registry,
		})
		if err != nil {
			return err
		}
		s.Register(p.RPC("gateway"))
		p.Add("dns", s)
		return nil
	})
}
