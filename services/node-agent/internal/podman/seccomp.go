package podman

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// seccompProfiles are where Podman looks for its profile, the first there is counts.
var seccompProfiles = []string{"/etc/containers/seccomp.json", "/usr/share/containers/seccomp.json"}

// writeSeccomp writes the profile of this agent's containers and returns its path:
// Podman's own, for the machine's native system calls only. The other ABIs of the
// processor (on x86-64: 32-bit programs and x32) are a way into the kernel that apps
// do not need, and compiling their filters takes longer than all else of a
// container's start. Without a profile to begin from the path is empty, and Podman
// uses the one it has built in.
func writeSeccomp(dir string) (path string, err error) {
	profile, err := readSeccomp(seccompProfiles)
	if err != nil || profile == nil {
		return "", err
	}
	if profile, err = nativeOnly(profile); err != nil || profile == nil {
		return "", err
	}
	path = filepath.Join(dir, "seccomp.json")
	if err := os.WriteFile(path, profile, 0o600); err != nil {
		return "", fmt.Errorf("write the containers' seccomp profile: %w", err)
	}
	return path, nil
}

func readSeccomp(paths []string) ([]byte, error) {
	for _, path := range paths {
		profile, err := os.ReadFile(path)
		if err == nil {
			return profile, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("read Podman's seccomp profile: %w", err)
		}
	}
	return nil, nil
}

// nativeOnly takes the sub-architectures out of a profile and leaves the rest as it is.
// It is nil for a profile that names its architectures otherwise, which somebody wrote
// for this machine.
func nativeOnly(profile []byte) ([]byte, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(profile, &all); err != nil {
		return nil, fmt.Errorf("read Podman's seccomp profile: %w", err)
	}
	if all["archMap"] == nil {
		return nil, nil
	}
	var archs []struct {
		Architecture string `json:"architecture"`
	}
	if err := json.Unmarshal(all["archMap"], &archs); err != nil {
		return nil, fmt.Errorf("read the architectures of Podman's seccomp profile: %w", err)
	}
	native, err := json.Marshal(archs)
	if err != nil {
		return nil, err
	}
	all["archMap"] = native
	return json.Marshal(all)
}
