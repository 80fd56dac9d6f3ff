package natsconn

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nats-io/nkeys"
)

// Keys are the key files of one platform, one for each role. Whoever holds a file
// has that role: they are made readable by their owner only.
type Keys struct {
	dir    string
	public map[Role]string
}

// EnsureKeys reads the key files of all roles in dir, making those that are not
// there: <dir>/platform.nk, node.nk, edge.nk.
func EnsureKeys(dir string) (Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Keys{}, fmt.Errorf("make the NATS key directory: %w", err)
	}
	keys := Keys{dir: dir, public: map[Role]string{}}
	for _, role := range []Role{RolePlatform, RoleNode, RoleEdge} {
		public, err := ensureKey(keys.SeedFile(role))
		if err != nil {
			return Keys{}, err
		}
		keys.public[role] = public
	}
	return keys, nil
}

// SeedFile is where that role's key is.
func (k Keys) SeedFile(role Role) string { return filepath.Join(k.dir, string(role)+".nk") }

func ensureKey(path string) (public string, err error) {
	seed, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		seed, err = makeKey(path)
	}
	if err != nil {
		return "", fmt.Errorf("NATS key %s: %w", path, err)
	}
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return "", fmt.Errorf("NATS key %s: %w", path, err)
	}
	defer pair.Wipe()
	return pair.PublicKey()
}

// makeKey writes a new user key so that a crash leaves the whole file or none.
func makeKey(path string) ([]byte, error) {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return nil, err
	}
	seed = bytes.Clone(seed) // the pair's own is wiped
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(append(seed, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return nil, err
	}
	return seed, os.Rename(file.Name(), path)
}
