package scenarios

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestContainersGetWhatTheirTierBuysAndNoMore(t *testing.T) {
	t.Parallel()
	s := platform(t)
	a := deploy(t, s, map[string]any{"image": push(t, s, "latest", "one"), "port": 8080, "tier": "buddo-pro"})
	list := a.containers()
	if len(list) != 1 {
		t.Fatalf("%d containers run, want one", len(list))
	}
	inspected, err := s.Nodes()[0].Podman().Inspect(t.Context(), list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	host := inspected.HostConfig
	if host.Memory != 512<<20 || host.MemorySwap != host.Memory {
		t.Errorf("memory %d and swap %d, want both 512 MB", host.Memory, host.MemorySwap)
	}
	if host.CpuQuota != 50_000 || host.CpuPeriod != 100_000 {
		t.Errorf("CPU %d of %d µs, want 500 m", host.CpuQuota, host.CpuPeriod)
	}
	if host.PidsLimit <= 0 {
		t.Errorf("pids are limited to %d", host.PidsLimit)
	}
	if host.Privileged || host.NetworkMode == "host" {
		t.Errorf("privileged %v, network %s", host.Privileged, host.NetworkMode)
	}
	if host.LogConfig.Size == "" || host.LogConfig.Size == "0B" {
		t.Errorf("the log's size is not limited: %+v", host.LogConfig)
	}
	allowed := []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_SETGID", "CAP_SETUID"}
	for _, capability := range inspected.BoundingCaps {
		if !slices.Contains(allowed, capability) {
			t.Errorf("the container may have %s", capability)
		}
	}
	// What the kernel says counts more than what Podman says.
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(list[0].Pid), "status"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("the process's status lacks %q", want)
		}
	}
	for _, env := range inspected.Config.Env {
		if strings.HasPrefix(env, "SLIPWAY_") || strings.HasPrefix(strings.ToLower(env), "http_proxy=") {
			t.Errorf("the container sees the platform's own %s", env)
		}
	}
	if got := a.visit("/env?name=PORT").JSON()["value"]; got != "8080" {
		t.Errorf("PORT is %v", got)
	}
}
