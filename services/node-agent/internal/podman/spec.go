package podman

import (
	"fmt"
	"maps"
	"strconv"

	"github.com/containers/podman/v5/pkg/specgen"
	spec "github.com/opencontainers/runtime-spec/specs-go"
	nettypes "go.podman.io/common/libnetwork/types"
	"golang.org/x/sys/unix"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// Labels that are the adapter's own: where the container's network is.
const (
	labelNamespace = "slipway.netns"
	labelIP        = "slipway.ip"
	labelPort      = "slipway.port"
)

const (
	defaultPids      = 512
	defaultLogBytes  = 10 << 20
	cpuPeriod        = 100_000 // microseconds
	maxOpenFiles     = 65_536
	maxProcessesUser = 65_536
)

// keptCapabilities are what an image may still do as root in its container; every
// other capability is dropped. They let the usual images work that start as root,
// fix the owner of their files, listen on port 80 and then become another user:
//
//	CHOWN, DAC_OVERRIDE, FOWNER, FSETID   hand files to the app's user
//	SETGID, SETUID                        become that user
//	NET_BIND_SERVICE                      listen below 1024
//	KILL                                  signal children of another user
//
// Left out of the common defaults: MKNOD, NET_RAW, SETFCAP, SETPCAP, SYS_CHROOT,
// AUDIT_WRITE.
var keptCapabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID",
}

// network is where a container is attached: a namespace made ahead, or Podman's bridge.
type network struct {
	namespace string // name; empty for the bridge
	path      string
	ip        string
}

func (p *Podman) specFor(s runtime.Spec, n network) *specgen.SpecGenerator {
	g := &specgen.SpecGenerator{}
	g.Name = s.Name
	g.Image = s.Image
	g.Systemd = "false"
	g.SdNotifyMode = "ignore"
	g.Env = map[string]string{"PORT": strconv.Itoa(s.Port)}
	maps.Copy(g.Env, s.Env)
	off := false
	g.EnvHost, g.HTTPProxy = &off, &off

	g.Labels = maps.Clone(s.Labels)
	if g.Labels == nil {
		g.Labels = map[string]string{}
	}
	g.Labels[runtime.LabelOwner] = p.owner
	g.Labels[labelPort] = strconv.Itoa(s.Port)
	// Also when empty: an image's labels become its containers', and these say where
	// traffic goes.
	g.Labels[labelNamespace], g.Labels[labelIP] = n.namespace, n.ip

	g.LogConfiguration = &specgen.LogConfig{Driver: "k8s-file", Size: orDefault(s.LogMaxBytes, defaultLogBytes)}

	on := true
	g.NoNewPrivileges = &on
	g.CapDrop = []string{"ALL"}
	g.CapAdd = keptCapabilities
	g.SeccompProfilePath = p.seccomp
	g.Rlimits = rlimits(p.service.pid())
	g.ResourceLimits = resources(s)

	if n.namespace != "" {
		g.NetNS = specgen.Namespace{NSMode: specgen.Path, Value: n.path}
	} else {
		g.NetNS = specgen.Namespace{NSMode: specgen.Bridge}
		g.Networks = map[string]nettypes.PerNetworkOptions{p.bridge: {}}
	}
	if p.publish {
		g.PortMappings = []nettypes.PortMapping{{HostIP: "127.0.0.1", ContainerPort: uint16(s.Port), Protocol: "tcp"}}
	}
	return g
}

func resources(s runtime.Spec) *spec.LinuxResources {
	pids := orDefault(s.PidsLimit, defaultPids)
	r := &spec.LinuxResources{Pids: &spec.LinuxPids{Limit: pids}}
	if s.MemoryBytes > 0 {
		memory := s.MemoryBytes
		r.Memory = &spec.LinuxMemory{Limit: &memory, Swap: &memory}
	}
	if s.CPUMillicores > 0 {
		period := uint64(cpuPeriod)
		quota := max(s.CPUMillicores*cpuPeriod/1000, 1000) // the kernel refuses less than 1 ms
		r.CPU = &spec.LinuxCPU{Period: &period, Quota: &quota}
	}
	return r
}

// rlimits stay under the hard limits that Podman's service has (it lowers its own
// at start), because without CAP_SYS_RESOURCE nobody may raise them and Podman's
// defaults would fail.
func rlimits(servicePID int) []spec.POSIXRlimit {
	limit := func(name string, resource int, most uint64) spec.POSIXRlimit {
		var l unix.Rlimit
		if err := unix.Prlimit(servicePID, resource, nil, &l); err == nil {
			most = min(most, l.Max)
		}
		return spec.POSIXRlimit{Type: name, Soft: most, Hard: most}
	}
	return []spec.POSIXRlimit{
		limit("nofile", unix.RLIMIT_NOFILE, maxOpenFiles),
		limit("nproc", unix.RLIMIT_NPROC, maxProcessesUser),
	}
}

func orDefault(v, def int64) int64 {
	if v > 0 {
		return v
	}
	return def
}

func address(ip, port string) string {
	if ip == "" || port == "" {
		return ""
	}
	return fmt.Sprintf("%s:%s", ip, port)
}
