package podman

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// app is a running container of the test image.
type app struct {
	id      string
	address string
	took    time.Duration // from before create to the first 200
}

func (m *machine) start(t testing.TB, image, name string, env map[string]string) app {
	t.Helper()
	ctx := t.Context()
	began := time.Now()
	id, err := m.podman.Create(ctx, runtime.Spec{
		Name: name, Image: image, Env: env, Port: 3000, MemoryBytes: 64 << 20, CPUMillicores: 250, PidsLimit: 100,
		Labels: map[string]string{runtime.LabelInstance: name},
	})
	if err != nil {
		t.Fatal(err)
	}
	started, err := m.podman.Start(ctx, id)
	if err != nil {
		t.Fatal(err)
	}
	a := app{id: id, address: started.Address}
	deadline := time.Now().Add(20 * time.Second)
	for {
		if code, _, err := get("http://" + a.address + "/"); err == nil && code == http.StatusOK {
			a.took = time.Since(began)
			return a
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s never answered at %s", name, a.address)
		}
		time.Sleep(time.Millisecond)
	}
}

func get(url string) (code int, body string, err error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	return response.StatusCode, string(text), err
}

func page(t *testing.T, a app, path string) string {
	t.Helper()
	code, body, err := get("http://" + a.address + path)
	if err != nil || code != http.StatusOK {
		t.Fatalf("GET %s: %d %s %v", path, code, body, err)
	}
	return body
}

func (m *machine) image(t testing.TB) string {
	t.Helper()
	ref, _ := m.registry.Push(t, "hardening/app", "v1", "app")
	image, err := m.podman.Pull(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	return image.ID
}

func TestAContainerMayDoLittle(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)
	a := m.start(t, m.image(t), "hardened", map[string]string{"COLOR": "blue"})

	status := page(t, a, "/status")
	// CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, NET_BIND_SERVICE 10.
	for _, want := range []string{"CapEff:\t00000000000004fb", "CapBnd:\t00000000000004fb", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("%q is missing in:\n%s", want, status)
		}
	}
	env := page(t, a, "/env")
	for _, want := range []string{"PORT=3000", "COLOR=blue"} {
		if !strings.Contains(env, want) {
			t.Errorf("%q is missing in:\n%s", want, env)
		}
	}
	if resolv := page(t, a, "/resolv"); !strings.Contains(resolv, "nameserver") {
		t.Errorf("resolv.conf = %q", resolv)
	}
	for line := range strings.Lines(page(t, a, "/hosts")) {
		if names := strings.Fields(line); len(names) > 1 && slices.ContainsFunc(names[1:], func(name string) bool {
			return name != "localhost" && name != "hardened" && !strings.HasPrefix(a.id, name)
		}) {
			t.Errorf("the container is told of the machine's names: %q", line)
		}
	}
	for file, want := range m.limitFiles(t, a) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Errorf("the container's limit: %v", err)
			continue
		}
		if got := strings.TrimSpace(string(text)); got != want {
			t.Errorf("%s = %s, want %s", file, got, want)
		}
	}
}

// A call of another ABI ends its thread; Podman's own profile would let the kernel
// answer it.
func TestAContainerHasTheNativeSystemCallsOnly(t *testing.T) {
	t.Parallel()
	if goruntime.GOARCH != "amd64" {
		t.Logf("the calls tried are those of amd64, not of %s", goruntime.GOARCH)
		return
	}
	m := newMachine(t, true)
	a := m.start(t, m.image(t), "native", nil)
	if got := page(t, a, "/syscall?number=39"); !strings.HasPrefix(got, "answered") {
		t.Errorf("getpid: %s", got)
	}
	const x32 = 0x40000000
	if got := page(t, a, fmt.Sprintf("/syscall?number=%d", x32+39)); got != "ended" {
		t.Errorf("getpid of the x32 ABI: %s", got)
	}
}

func TestASeccompProfileLosesOnlyForeignArchitectures(t *testing.T) {
	t.Parallel()
	got, err := nativeOnly([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,
		"archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":["SCMP_ARCH_X86"]}],"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`))
	want := `{"archMap":[{"architecture":"SCMP_ARCH_X86_64"}],"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,` +
		`"syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW"}]}`
	if err != nil || string(got) != want {
		t.Errorf("nativeOnly = %s, %v", got, err)
	}
	if got, err := nativeOnly([]byte(`{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"]}`)); got != nil || err != nil {
		t.Errorf("a profile that names its architectures itself gave %s, %v", got, err)
	}
}

// limitFiles are the cgroup's files with what must be in them.
func (m *machine) limitFiles(t *testing.T, a app) map[string]string {
	t.Helper()
	const limit = 64 << 20
	group := "/libpod_parent/libpod-" + a.id
	if m.podman.platform.unified {
		dir := cgroupRoot + group
		return map[string]string{
			dir + "/memory.max": fmt.Sprint(limit), dir + "/memory.swap.max": "0",
			dir + "/cpu.max": "25000 100000", dir + "/pids.max": "100",
		}
	}
	return map[string]string{
		cgroupRoot + "/memory" + group + "/memory.limit_in_bytes":       fmt.Sprint(limit),
		cgroupRoot + "/memory" + group + "/memory.memsw.limit_in_bytes": fmt.Sprint(limit),
		cgroupRoot + "/cpu" + group + "/cpu.cfs_quota_us":               "25000",
		cgroupRoot + "/pids" + group + "/pids.max":                      "100",
	}
}

func TestContainersReachNeitherEachOtherNorTheMachine(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)
	image := m.image(t)
	one, two := m.start(t, image, "one", nil), m.start(t, image, "two", nil)

	if code, body, err := get("http://" + one.address + "/dial?address=" + two.address); err != nil || code == http.StatusOK {
		t.Errorf("a container reaches its neighbour: %d %s %v", code, body, err)
	}
	listener, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	port := listener.Addr().(*net.TCPAddr).Port
	gateway := m.pool.Subnet().Addr().Next()
	for _, host := range []string{gateway.String(), "127.0.0.1", outwardAddress(t)} {
		target := net.JoinHostPort(host, fmt.Sprint(port))
		if code, body, err := get("http://" + one.address + "/dial?address=" + target); err != nil || code == http.StatusOK {
			t.Errorf("a container reaches the machine at %s: %d %s %v", target, code, body, err)
		}
	}
}

func outwardAddress(t *testing.T) string {
	t.Helper()
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if n, ok := a.(*net.IPNet); ok && n.IP.To4() != nil && n.IP.IsGlobalUnicast() {
			return n.IP.String()
		}
	}
	t.Fatal("the machine has no address")
	return ""
}

func TestPodmansServiceComesBackWhenItDies(t *testing.T) {
	t.Parallel()
	m := newMachine(t, true)
	a := m.start(t, m.image(t), "survivor", nil)
	process, err := os.FindProcess(m.podman.service.pid())
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Kill(); err != nil {
		t.Fatal(err)
	}
	page(t, a, "/") // the container does not mind
	deadline := time.Now().Add(20 * time.Second)
	for {
		c, err := m.podman.Inspect(t.Context(), a.id)
		if err == nil && c.State == runtime.StateRunning && c.Address == a.address {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("inspect = %+v, %v", c, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestTwoAgentsOnOneMachineDoNotMeet(t *testing.T) {
	t.Parallel()
	for _, pooled := range []bool{true, false} {
		one := newMachineNamed(t, fmt.Sprint("one ", pooled), pooled, false)
		two := newMachineNamed(t, fmt.Sprint("two ", pooled), pooled, false)
		imageOne, imageTwo := one.image(t), two.image(t)
		a, b := one.start(t, imageOne, "same-name", nil), two.start(t, imageTwo, "same-name", nil)
		if a.address == b.address {
			t.Errorf("both are at %s", a.address)
		}
		one.end(t, a)
		page(t, b, "/")
	}
}

func TestPublishedPortsAreReachedOnTheLoopbackAddress(t *testing.T) {
	t.Parallel()
	m := newMachineNamed(t, t.Name(), false, true)
	a := m.start(t, m.image(t), "published", nil)
	if !strings.HasPrefix(a.address, "127.0.0.1:") {
		t.Fatalf("it is at %s", a.address)
	}
}

func TestAServiceLeftByAnEarlierAgentIsReplaced(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(t.TempDir(), "p.sock")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	left.Close()
	if err := endLeftover(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Fatalf("the stale socket is still there: %v", err)
	}

	plat, err := probePlatform()
	if err != nil {
		t.Fatal(err)
	}
	conf, err := writeConf(t.TempDir(), plat)
	if err != nil {
		t.Fatal(err)
	}
	root, run := t.TempDir(), runDir(t.TempDir())
	defer func() {
		if err := (&Podman{root: root, run: run}).Purge(); err != nil {
			t.Error(err)
		}
	}()
	orphan := exec.Command("podman", "--root", filepath.Join(root, "storage"), "--runroot", run, "--tmpdir", filepath.Join(run, "libpod"),
		"system", "service", "--time=0", "unix://"+socket)
	orphan.Env = append(os.Environ(), "CONTAINERS_CONF="+conf)
	orphan.Stdout, orphan.Stderr = t.Output(), t.Output()
	if err := orphan.Start(); err != nil {
		t.Fatal(err)
	}
	waitDead := make(chan error, 1)
	go func() { waitDead <- orphan.Wait() }()
	deadline := time.Now().Add(20 * time.Second)
	for !answers(socket) {
		if time.Now().After(deadline) {
			t.Fatal("the earlier service never answered")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := endLeftover(t.Context(), socket); err != nil {
		t.Fatal(err)
	}
	select {
	case <-waitDead:
	case <-time.After(20 * time.Second):
		t.Fatal("the earlier service still runs")
	}
}

// BenchmarkStart measures create and start to the first 200, one by one and eight at
// once, with the pool of namespaces and on Podman's bridge.
func BenchmarkStart(b *testing.B) {
	for _, pooled := range []bool{true, false} {
		name := map[bool]string{true: "pool", false: "bridge"}[pooled]
		b.Run(name, func(b *testing.B) {
			m := newMachine(b, pooled)
			image := m.image(b)
			serial := 0
			b.Run("one by one", func(b *testing.B) {
				for b.Loop() {
					serial++
					a := m.start(b, image, fmt.Sprintf("bench-%d", serial), nil)
					b.StopTimer()
					m.end(b, a)
					b.StartTimer()
				}
			})
			b.Run("eight at once", func(b *testing.B) {
				for b.Loop() {
					apps := make([]app, 8)
					var starts sync.WaitGroup
					for n := range apps {
						serial++
						own := fmt.Sprintf("bench-%d", serial)
						starts.Go(func() { apps[n] = m.start(b, image, own, nil) })
					}
					starts.Wait()
					b.StopTimer()
					for _, a := range apps {
						m.end(b, a)
					}
					time.Sleep(300 * time.Millisecond) // the pool refills off the clock
					b.StartTimer()
				}
			})
		})
	}
}

func (m *machine) end(t testing.TB, a app) {
	t.Helper()
	if err := m.podman.Remove(context.WithoutCancel(t.Context()), a.id); err != nil {
		t.Fatal(err)
	}
}
