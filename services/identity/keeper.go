package identity

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/slipway-paas/slipway/services/identity/credentials"
)

// KeeperConfig says where the first operator's credentials are kept.
type KeeperConfig struct {
	// File is written with mode 0600; its directory must be there.
	File string
	// APIURL is where the gateway answers, AppURL the live address of apps with
	// {subdomain} in it; both are for clients that read the file.
	APIURL, AppURL string
}

// Keeper makes the first operator when there is none, and sees to it that the file
// holds credentials: it replaces the token when the file is not there.
type Keeper struct {
	service *Service
	config  KeeperConfig
	log     *slog.Logger
	kept    atomic.Bool
}

// NewKeeper makes a keeper that does nothing until Run.
func NewKeeper(s *Service, c KeeperConfig, log *slog.Logger) *Keeper {
	return &Keeper{service: s, config: c, log: log}
}

// Run tries until the credentials are kept and then waits for ctx to end.
func (k *Keeper) Run(ctx context.Context) error {
	for wait := 250 * time.Millisecond; !k.kept.Load(); wait = min(2*wait, 5*time.Second) {
		if err := k.Keep(ctx); err == nil {
			break
		} else if ctx.Err() == nil {
			k.log.WarnContext(ctx, "the first operator's credentials are not kept yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
	<-ctx.Done()
	return nil
}

// Ready is nil once the credentials are kept.
func (k *Keeper) Ready() error {
	if !k.kept.Load() {
		return errors.New("the first operator's credentials are not kept yet")
	}
	return nil
}

// Keep makes the first operator once, and gives it a new token when the file with
// the old one is gone; it brings the file's addresses up to date.
func (k *Keeper) Keep(ctx context.Context) error {
	known, found, err := credentials.Read(k.config.File)
	if err != nil {
		return err
	}
	made, created, err := k.service.Bootstrap(ctx)
	if err != nil {
		return err
	}
	if !created && (!found || known.OperatorID != made.OperatorID) {
		k.log.WarnContext(ctx, "the credentials are gone: giving the first operator a new token", "operator_id", made.OperatorID)
		if made, err = k.service.ReplaceToken(ctx); err != nil {
			return err
		}
		created = true
	}
	want := known
	want.APIURL, want.AppURL = k.config.APIURL, k.config.AppURL
	if created {
		want.OperatorID, want.AccessToken = made.OperatorID, made.AccessToken
	}
	if want != known {
		if err := credentials.Write(k.config.File, want); err != nil {
			return err
		}
	}
	k.kept.Store(true)
	return nil
}
