package podman

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const cgroupRoot = "/sys/fs/cgroup"

// platform is what the machine lets Podman use.
type platform struct {
	ociRuntime    string // name, e.g. "runc"
	ociPath       string
	cgroupManager string
	unified       bool // cgroup v2 only
}

// probePlatform chooses the OCI runtime: crun is the faster, but refuses machines
// whose cgroup v1 hierarchy has a v2 one mounted beside it, so only runc is sure there.
func probePlatform() (platform, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(cgroupRoot, &fs); err != nil {
		return platform{}, fmt.Errorf("look at %s: %w", cgroupRoot, err)
	}
	p := platform{unified: fs.Type == unix.CGROUP2_SUPER_MAGIC, cgroupManager: "cgroupfs"}
	preferred := []string{"runc", "crun"}
	if p.unified {
		preferred = []string{"crun", "runc"}
		if _, err := os.Stat("/run/systemd/system"); err == nil {
			p.cgroupManager = "systemd"
		}
	}
	for _, name := range preferred {
		for _, candidate := range []string{name, "/usr/sbin/" + name, "/usr/bin/" + name} {
			path, err := exec.LookPath(candidate)
			if err != nil {
				continue
			}
			p.ociRuntime, p.ociPath = name, path
			return p, nil
		}
	}
	return platform{}, fmt.Errorf("neither runc nor crun is installed")
}

// writeConf writes the CONTAINERS_CONF of this agent's Podman and returns its path.
//
// Locks are files under the agent's own directory, because the shared-memory ones
// are one segment for the whole machine, which a second Podman root resets when it
// first starts.
//
// Containers are not told the machine's address: they may not connect to it, and
// Podman lists every network interface to find one. Nor are they told the names that
// the machine's /etc/hosts has.
func writeConf(dir string, p platform) (string, error) {
	var b strings.Builder
	fmt.Fprintf(&b, `# Written by slipway-node-agent at each start.
[containers]
http_proxy = false
host_containers_internal_ip = "none"
base_hosts_file = "none"
[engine]
runtime = %q
cgroup_manager = %q
events_logger = "file"
lock_type = "file"
[engine.runtimes]
%s = [%q]
`, p.ociRuntime, p.cgroupManager, p.ociRuntime, p.ociPath)
	if hasNetavark() {
		b.WriteString("[network]\nnetwork_backend = \"netavark\"\n")
	}
	path := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return "", fmt.Errorf("write Podman's configuration: %w", err)
	}
	return path, nil
}

// hasNetavark looks where Podman looks; without it Podman chooses for itself, and
// refuses to start when told to use it.
func hasNetavark() bool {
	for _, dir := range []string{"/usr/local/libexec/podman", "/usr/local/lib/podman", "/usr/libexec/podman", "/usr/lib/podman"} {
		if _, err := os.Stat(filepath.Join(dir, "netavark")); err == nil {
			return true
		}
	}
	return false
}
