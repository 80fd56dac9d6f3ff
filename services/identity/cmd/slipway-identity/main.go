// Command slipway-identity says who an access token speaks for.
package main

import (
	"context"
	"errors"

	"github.com/slipway-paas/slipway/libs/eventstore/jetstream"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/service"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/identity"
)

// version is set by the build.
var version = "dev"

type settings struct {
	service.Settings
	identity.Config
	MasterKey  string `koanf:"master-key" usage:"file with the key that wraps data keys; made when it is not there"`
	MasterKeys string `koanf:"master-keys" secret:"true" usage:"the keys themselves instead of a file, for the environment: base64 of 32 bytes each, newest first, with commas"`
	File       string `koanf:"credentials-file" usage:"keep the first operator's credentials in this file; made anew when it is not there"`
	APIURL     string `koanf:"public-url" default:"http://127.0.0.1:8080" usage:"where the gateway answers, for the credentials file"`
	AppURL     string `koanf:"app-url" default:"http://{subdomain}.apps.localhost:8000" usage:"live address of apps, for the credentials file"`
}

func main() {
	c := settings{Config: identity.DefaultConfig()}
	service.Main("slipway-identity", version, &c, func(ctx context.Context, p *service.Process) error {
		if c.MasterKey == "" && c.MasterKeys == "" {
			return errors.New("--master-key or SLIPWAY_MASTER_KEYS is needed")
		}
		_, js, err := p.NATS(natsconn.RolePlatform)
		if err != nil {
			return err
		}
		events := jetstream.New(js, p.Log,
			jetstream.WithTracer(p.Observer.Tracer("eventstore")), jetstream.WithMeter(p.Observer.Meter()))
		keys, err := js.KeyValue(ctx, subjects.BucketKeys)
		if err != nil {
			return err
		}
		sealer, err := seal.Unlock(ctx, seal.From{File: c.MasterKey, Keys: c.MasterKeys}, keys)
		if err != nil {
			return err
		}
		c.Issuer = c.APIURL
		s, err := identity.New(c.Config, identity.Deps{Store: events, Seal: sealer, Log: p.Log})
		if err != nil {
			return err
		}
		s.Register(p.RPC("gateway"))
		p.Add("identity", s)
		if c.File != "" {
			keep := identity.KeeperConfig{File: c.File, APIURL: c.APIURL, AppURL: c.AppURL}
			p.Add("credentials", identity.NewKeeper(s, keep, p.Log))
		}
		return nil
	})
}
