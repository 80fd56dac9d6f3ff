// Package datadir says where a platform keeps what in its data directory, and keeps
// that directory to one daemon at a time.
package datadir

import (
	"os"
	"path/filepath"
)

// Restoring is the directory in which a restore prepares everything. While it is
// there the data directory is nobody's.
const Restoring = ".restoring"

// Dir is a data directory.
type Dir string

// Default is the system's place for root, the user's own otherwise.
func Default() Dir {
	if os.Geteuid() == 0 {
		return "/var/lib/slipway"
	}
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return Dir(filepath.Join(dir, "slipway"))
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ".slipway"
	}
	return Dir(filepath.Join(home, ".local", "share", "slipway"))
}

func (d Dir) in(parts ...string) string {
	return filepath.Join(append([]string{string(d)}, parts...)...)
}

// NATSKeys holds the roles' key files.
func (d Dir) NATSKeys() string { return d.in("nats", "keys") }

// NATSStore holds the embedded NATS server's streams.
func (d Dir) NATSStore() string { return d.in("nats", "store") }

// MasterKey wraps every data key.
func (d Dir) MasterKey() string { return d.in("master.key") }

// Credentials are the first operator's.
func (d Dir) Credentials() string { return d.in("credentials.json") }

// Settings is the configuration that the daemon runs with, as YAML, without secrets.
func (d Dir) Settings() string { return d.in("settings.yaml") }

// Restored is the configuration of the platform that was restored here.
func (d Dir) Restored() string { return d.in("restored.yaml") }

// Registry holds the images of the built-in registry.
func (d Dir) Registry() string { return d.in("registry") }

// Postgres holds the private database; it is rebuilt from the log.
func (d Dir) Postgres() string { return d.in("postgres") }

// Edge holds certificates and the route table.
func (d Dir) Edge() string { return d.in("edge") }

// Node holds one node's containers.
func (d Dir) Node(id string) string { return d.in("nodes", id) }
