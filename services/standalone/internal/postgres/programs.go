package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ErrMissing is returned when no PostgreSQL server is installed.
var ErrMissing = errors.New("PostgreSQL is not installed: install Debian's package postgresql, or give --database-url")

// debianGlob is where Debian puts each version's programs; they are not in PATH.
const debianGlob = "/usr/lib/postgresql/*/bin"

// programs finds the directory of initdb and postgres: of the data's version, or
// the newest one when there is no data yet.
func programs(dataDir string) (string, error) {
	wanted, err := os.ReadFile(filepath.Join(dataDir, "PG_VERSION"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read the version of the database: %w", err)
	}
	version := strings.TrimSpace(string(wanted))
	found, err := installed()
	if err != nil {
		return "", err
	}
	if len(found) == 0 {
		return "", ErrMissing
	}
	if version == "" {
		return found[0].dir, nil
	}
	for _, p := range found {
		if p.version == version || p.version == "" {
			return p.dir, nil
		}
	}
	return "", fmt.Errorf("the database in %s is of PostgreSQL %s, which is not installed: install Debian's package postgresql-%s", dataDir, version, version)
}

type installation struct {
	dir     string
	version string // major; empty when not known
}

// installed lists what is there, newest first.
func installed() ([]installation, error) {
	dirs, err := filepath.Glob(debianGlob)
	if err != nil {
		return nil, fmt.Errorf("look for PostgreSQL: %w", err)
	}
	var found []installation
	for _, dir := range dirs {
		if complete(dir) {
			found = append(found, installation{dir: dir, version: filepath.Base(filepath.Dir(dir))})
		}
	}
	slices.SortFunc(found, func(a, b installation) int { return major(b.version) - major(a.version) })
	if path, err := exec.LookPath("initdb"); err == nil && complete(filepath.Dir(path)) {
		found = append(found, installation{dir: filepath.Dir(path)})
	}
	return found, nil
}

func complete(dir string) bool {
	for _, program := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, program)); err != nil || info.Mode()&0o111 == 0 {
			return false
		}
	}
	return true
}

func major(version string) int {
	n, err := strconv.Atoi(version)
	if err != nil {
		return 0
	}
	return n
}
