// Package credentials keeps what the first operator signs in with, in a file for
// its owner alone.
package credentials

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Credentials are the API's address and the first operator's token.
type Credentials struct {
	APIURL string `json:"api_url"`
	// AppURL is the live address of apps, with {subdomain} in it.
	AppURL      string `json:"app_url"`
	OperatorID  string `json:"operator_id"`
	AccessToken string `json:"access_token"`
}

// Read returns what is in the file, and found == false when there is no such file.
func Read(path string) (c Credentials, found bool, err error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Credentials{}, false, nil
	}
	if err != nil {
		return Credentials{}, false, fmt.Errorf("read the credentials: %w", err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		return Credentials{}, false, fmt.Errorf("read the credentials: %s: %w", path, err)
	}
	return c, c.AccessToken != "", nil
}

// Write replaces the file, with mode 0600; a crash leaves the old or the new one whole.
func Write(path string, c Credentials) error {
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
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
