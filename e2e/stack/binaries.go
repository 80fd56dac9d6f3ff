package stack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// BinEnv names the directory with the platform's binaries.
const BinEnv = "SLIPWAY_BIN"

// Binaries finds the directory with the platform's binaries: the given one, else
// SLIPWAY_BIN, else the repository's bin. It fails when they were not built.
func Binaries(given string) (string, error) {
	dir := given
	if dir == "" {
		dir = os.Getenv(BinEnv)
	}
	if dir == "" {
		root, err := Repository()
		if err != nil {
			return "", err
		}
		dir = filepath.Join(root, "bin")
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("find the binaries: %w", err)
	}
	for _, name := range []string{"slipwayd", "slipway-edge"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("%s is missing in %s: run make build: %w", name, dir, err)
		}
	}
	return dir, nil
}

// Repository is the root of the checkout that the working directory is in.
func Repository() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find the repository: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find the repository: no go.work in the working directory or above")
		}
		dir = parent
	}
}

// NATSServer is the path of a real NATS server of the version that is embedded.
func NATSServer() (string, error) {
	bin, err := Binaries("")
	if err != nil {
		return "", err
	}
	return natsServer(bin)
}

// natsServer builds the NATS server beside the platform's binaries, once.
func natsServer(bin string) (string, error) {
	path := filepath.Join(bin, "nats-server")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	root, err := Repository()
	if err != nil {
		return "", err
	}
	build := exec.Command("go", "build", "-o", path, "github.com/nats-io/nats-server/v2")
	build.Dir = filepath.Join(root, "e2e")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the NATS server: %w\n%s", err, out)
	}
	return path, nil
}
