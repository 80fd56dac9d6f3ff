package cli

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// credentials say where the API is and who we are.
type credentials struct {
	APIURL      string `json:"api_url"`
	AccessToken string `json:"access_token"`
	// AppURL is the live address of apps, with {subdomain} in it; may be empty.
	AppURL string `json:"app_url"`
}

// findCredentials takes each setting from the environment before the file. The file
// is the one named, by flag before SLIPWAY_CREDENTIALS, or the first that there is
// of ./.slipway/credentials.json and ~/.config/slipway/credentials.json.
func findCredentials(named string, env func(string) string) (credentials, error) {
	if named == "" {
		named = env("SLIPWAY_CREDENTIALS")
	}
	paths := []string{named}
	if named == "" {
		paths = []string{filepath.Join(".slipway", "credentials.json")}
		if home := env("HOME"); home != "" {
			paths = append(paths, filepath.Join(home, ".config", "slipway", "credentials.json"))
		}
	}
	var c credentials
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && named == "" {
			continue
		}
		if err != nil {
			return c, usage("The credentials cannot be read: %w. Name another file with --credentials or SLIPWAY_CREDENTIALS.", err)
		}
		if err := json.Unmarshal(text, &c); err != nil {
			return c, usage("The credentials in %s are no JSON: %w. Let slipwayd make them anew.", path, err)
		}
		break
	}
	for variable, setting := range map[string]*string{"SLIPWAY_API_URL": &c.APIURL, "SLIPWAY_TOKEN": &c.AccessToken, "SLIPWAY_APP_URL": &c.AppURL} {
		if value := env(variable); value != "" {
			*setting = value
		}
	}
	if c.AccessToken == "" {
		return c, fail(ExitUnauthorized, "There is no access token. Set SLIPWAY_TOKEN, or name a credentials file with --credentials; slipwayd writes one to credentials.json in its data directory.")
	}
	if c.APIURL == "" {
		c.APIURL = "http://127.0.0.1:8080"
	}
	return c, nil
}
