package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
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
		if err := k.keep(ctx); err == nil {
			k.kept.Store(true)
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

func (k *Keeper) keep(ctx context.Context) error {
	made, created, err := k.service.Bootstrap(ctx)
	if err != nil {
		return err
	}
	_, err = os.Stat(k.config.File)
	switch {
	case err == nil && !created:
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look for the credentials: %w", err)
	case !created:
		if made, err = k.service.ReplaceToken(ctx); err != nil {
			return err
		}
	}
	return k.write(made)
}

// write leaves the old file or the new one whole.
func (k *Keeper) write(c Credentials) error {
	text, err := json.MarshalIndent(map[string]string{
		"api_url": k.config.APIURL, "app_url": k.config.AppURL, "operator_id": c.OperatorID, "access_token": c.AccessToken,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(k.config.File), ".credentials-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(append(text, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	if err := os.Rename(file.Name(), k.config.File); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	return nil
}
