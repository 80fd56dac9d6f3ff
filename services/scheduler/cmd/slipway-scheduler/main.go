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
	Billing     string `koanf:"billing" default:"127.0.0.1:9103" usage:"host:port of slipway-billing"`
}

func main() {
	c := settings{Config: scheduler.DefaultConfig()}
	service.Main("slipway-scheduler", version, &c, func(ctx context.Context, p *service.Process) error {
		if c.DatabaseURL == "" || c.MasterKey == "" {
			return errors.New("--database-url and --master-key are needed")
		}
		nc, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		pool, err := pgxpool.New(ctx, c.DatabaseURL)
		if err != nil {
			return err
		}
		master, err := seal.Master(c.MasterKey)
		if err != nil {
			return err
		}
		keys, err := js.KeyValue(ctx, subjects.BucketKeys)
		if err != nil {
			return err
		}
		tiers, err := p.Dial(c.Billing)
		if err != nil {
			return err
		}
		s, err := scheduler.New(c.Config, scheduler.Deps{
			Store: jetstream.New(js, p.Log), NATS: nc, JetStream: js, Pool: pool, Seal: seal.New(master, seal.NewKV(keys)),
			Tiers: billingv1.NewTierServiceClient(tiers), Registry: p.Observer.Registry, Now: time.Now, Log: p.Log, Meter: p.Observer.Meter("scheduler"),
		})
		if err != nil {
			return err
		}
		s.Register(p.RPC())
		p.Add("scheduler", s)
		return nil
	})
}
