package natsconn

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// A node's key file is node-<id>.nk.
const (
	nodePrefix = "node-"
	keySuffix  = ".nk"
)

// Keys are the key files of one platform: of the roles platform, edge and subscriptions,
// and one for each node. Whoever holds a file has that role, or is that node: they are made
// readable by their owner only.
type Keys struct {
	dir    string
	public map[Role]string
	nodes  map[string]string // public keys by node id
}

// EnsureKeys reads the key files in dir, <dir>/platform.nk, edge.nk, subscriptions.nk
// and node-<id>.nk of every node that has one, making those of the roles and of the named nodes where they
// are not there.
func EnsureKeys(dir string, nodes ...string) (Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Keys{}, fmt.Errorf("make the NATS key directory: %w", err)
	}
	keys := Keys{dir: dir, public: map[Role]string{}}
	for _, role := range []Role{RolePlatform, RoleEdge, RoleSubscriptions} {
		public, err := ensureKey(keys.SeedFile(role))
		if err != nil {
			return Keys{}, err
		}
		keys.public[role] = public
	}
	for _, node := range nodes {
		if !subjects.ValidToken(node) {
			return Keys{}, fmt.Errorf("NATS key of a node: %q is no node id; use 1 to 128 letters, digits, hyphens or underscores", node)
		}
		if _, err := ensureKey(keys.NodeSeedFile(node)); err != nil {
			return Keys{}, err
		}
	}
	return keys.withNodes()
}

// withNodes are the same keys with those of the nodes that have a key file now.
func (k Keys) withNodes() (Keys, error) {
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		return Keys{}, fmt.Errorf("look for the nodes' NATS keys: %w", err)
	}
	k.nodes = map[string]string{}
	for _, entry := range entries {
		node, isNode := strings.CutPrefix(entry.Name(), nodePrefix)
		node, isKey := strings.CutSuffix(node, keySuffix)
		if !isNode || !isKey || !subjects.ValidToken(node) {
			continue
		}
		if k.nodes[node], err = readKey(k.NodeSeedFile(node)); err != nil {
			return Keys{}, err
		}
	}
	return k, nil
}

// SeedFile is where the key of that role is; nodes have their own: see NodeSeedFile.
func (k Keys) SeedFile(role Role) string { return filepath.Join(k.dir, string(role)+keySuffix) }

// NodeSeedFile is where that node's key is.
func (k Keys) NodeSeedFile(node string) string {
	return filepath.Join(k.dir, nodePrefix+node+keySuffix)
}

// Nodes are the ids of the nodes that have a key, sorted.
func (k Keys) Nodes() []string { return slices.Sorted(maps.Keys(k.nodes)) }

func ensureKey(path string) (public string, err error) {
	public, err = readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return public, err
	}
	if err := makeKey(path); err != nil {
		return "", fmt.Errorf("NATS key %s: %w", path, err)
	}
	return readKey(path)
}

func readKey(path string) (public string, err error) {
	seed, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("NATS key: %w", err)
	}
	pair, err := nkeys.ParseDecoratedNKey(seed)
	if err != nil {
		return "", fmt.Errorf("NATS key %s: %w", path, err)
	}
	defer pair.Wipe()
	return pair.PublicKey()
}

// makeKey writes a new user key so that a crash leaves the whole file or none.
func makeKey(path string) error {
	pair, err := nkeys.CreateUser()
	if err != nil {
		return err
	}
	defer pair.Wipe()
	seed, err := pair.Seed()
	if err != nil {
		return err
	}
	file, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	_, err = file.Write(append(seed, '\n'))
	err = errors.Join(err, file.Sync(), file.Close())
	if err != nil {
		return err
	}
	return os.Rename(file.Name(), path)
}
