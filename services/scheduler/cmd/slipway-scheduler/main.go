// Command slipway-scheduler owns deployments: it decides where they run and
// carries rollouts to their end.
package main

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	billingv1 "github.com/slipway-paas/slipway/gen/slipway/billing/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/scheduler"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	scheduler.Config
	DatabaseURL string `koanf:"database-url" usage:"PostgreSQL, postgres://…"`
	MasterKey   string `koanf:"master-key" usage:"file with the key that wraps data keys; made when it is not there"`
	MasterKeys  string `koanf:"master-keys" secret:"true" usage:"the keys themselves instead of a file, for the environment: base64 of 32 bytes each, newest first, with commas"`
	Billing     string `koanf:"billing" default:"127.0.0.1:9103" usage:"host:port of slipway-billing"`
}

func main() {
	c := settings{Config: scheduler.DefaultConfig()}
	service.Main("slipway-scheduler", version, &c, func(ctx context.Context, p *service.Process) error {
		if c.DatabaseURL == "" || (c.MasterKey == "" && c.MasterKeys == "") {
			return errors.New("--database-url and --master-key, or SLIPWAY_MASTER_KEYS, are needed")
		}
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		pool, err := pgxpool.New(ctx, c.DatabaseURL)
		if err != nil {
			return err
		}
		keys, err := js.KeyValue(ctx, subjects.BucketKeys)
		if err != nil {
			return err
		}
		sealer, err := seal.Unlock(ctx, seal.From{File: c.MasterKey, Keys: c.MasterKeys}, keys)
		if err != nil {
			return err
		}
		tiers, err := p.Dial("billing", c.Billing)
		if err != nil {
			return err
		}
		s, err := scheduler.New(c.Config, scheduler.Deps{
			Store: events,
			NATS:  nc, JetStream: js, Pool: pool, Seal: sealer,
			Tiers: billingv1.NewTierServiceClient(tiers), Now: time.Now, Log: p.Log,
			Metrics: p.Observer.Registry, Meter: p.Observer.Meter(), Tracer: p.Observer.Tracer("scheduler"),
		})
		if err != nil {
			return err
		}
		s.Register(p.RPC("gateway"))
		p.Add("scheduler", s)
		return nil
	})
}
