package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/sys/unix"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// credentials say where the API is and who we are.
type credentials struct {
	APIURL      string `json:"api_url"`
	AccessToken string `json:"access_token"`
	// AppURL is the live address of apps, with {subdomain} in it; may be empty.
	AppURL string `json:"app_url,omitempty"`
	// RefreshToken and ExpiresAt are there when slipway login has made them.
	RefreshToken string     `json:"refresh_token,omitempty"`
	ExpiresAt    *time.Time `json:"expires_at,omitempty"`

	// path is the file they are from; empty for none. fromEnv says that the token is not.
	path    string
	fromEnv bool
}

// refreshBefore is how long before its end an access token is not used any more.
const refreshBefore = time.Minute

// findCredentials takes each setting from the environment before the file. The file
// is the one named, by flag before SLIPWAY_CREDENTIALS, or the first that there is
// of ./.slipway/credentials.json and slipway/credentials.json in the directory for
// settings. There may be no token in them.
func (c *command) findCredentials() (credentials, error) {
	named := c.namedFile()
	paths := []string{named}
	if named == "" {
		paths = []string{filepath.Join(".slipway", "credentials.json")}
		if own := c.ownFile(); own != "" {
			paths = append(paths, own)
		}
	}
	var found credentials
	for _, path := range paths {
		var err error
		found, err = readCredentials(path)
		if errors.Is(err, fs.ErrNotExist) && (named == "" || c.makes) {
			continue
		}
		if err != nil {
			return found, err
		}
		break
	}
	for variable, setting := range map[string]*string{"SLIPWAY_API_URL": &found.APIURL, "SLIPWAY_TOKEN": &found.AccessToken, "SLIPWAY_APP_URL": &found.AppURL} {
		if value := c.env.Getenv(variable); value != "" {
			*setting = value
		}
	}
	found.fromEnv = c.env.Getenv("SLIPWAY_TOKEN") != ""
	if found.APIURL == "" {
		found.APIURL = "http://127.0.0.1:8080"
	}
	return found, nil
}

func (c *command) namedFile() string {
	if c.file != "" {
		return c.file
	}
	return c.env.Getenv("SLIPWAY_CREDENTIALS")
}

// ownFile is where slipway login keeps what it gets; empty when there is no such place.
func (c *command) ownFile() string {
	if named := c.namedFile(); named != "" {
		return named
	}
	dir := c.env.ConfigDir
	if dir == "" {
		home := c.env.Getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "slipway", "credentials.json")
}

func readCredentials(path string) (credentials, error) {
	var c credentials
	text, err := os.ReadFile(path)
	if err != nil {
		return c, usage("The credentials cannot be read: %w. Name another file with --credentials or SLIPWAY_CREDENTIALS.", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return c, usage("The credentials in %s are no JSON: %w. Sign in again with slipway login, or let slipwayd make them anew.", path, err)
	}
	c.path = path
	return c, nil
}

// writeCredentials replaces the file, for its owner alone; a crash leaves the old or the
// new one whole.
func writeCredentials(path string, c credentials) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".credentials-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	defer os.Remove(file.Name())
	_, err = file.Write(append(text, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return fmt.Errorf("write the credentials: %w", err)
	}
	return nil
}

// stale reports whether the access token must be refreshed before it is used.
func (c credentials) stale(now time.Time) bool {
	return !c.fromEnv && c.RefreshToken != "" && c.ExpiresAt != nil && !now.Before(c.ExpiresAt.Add(-refreshBefore))
}

// fresh refreshes the access token when it is about to end. A refresh token is good for
// once, so that of several slipways at work one refreshes, and the others read what it got.
func fresh(ctx context.Context, c credentials, now time.Time) (credentials, error) {
	if !c.stale(now) {
		return c, nil
	}
	lock, err := os.OpenFile(c.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return c, fmt.Errorf("lock the credentials: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return c, fmt.Errorf("lock the credentials: %w", err)
	}
	kept, err := readCredentials(c.path)
	if err != nil {
		return c, err
	}
	if kept.stale(now) {
		old := &oauth2.Token{RefreshToken: kept.RefreshToken, Expiry: time.Unix(1, 0)}
		got, err := api.OAuth(c.APIURL).TokenSource(ctx, old).Token()
		if err != nil {
			return c, signInFailure(c.APIURL, err)
		}
		kept.AccessToken, kept.RefreshToken, kept.ExpiresAt = got.AccessToken, got.RefreshToken, &got.Expiry
		if err := writeCredentials(c.path, kept); err != nil {
			return c, err
		}
	}
	c.AccessToken, c.RefreshToken, c.ExpiresAt = kept.AccessToken, kept.RefreshToken, kept.ExpiresAt
	return c, nil
}
