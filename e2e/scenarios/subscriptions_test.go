package scenarios

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/stack"
)

func TestTheStoryOfASubscriberInOneDaemon(t *testing.T) {
	t.Parallel()
	theStoryOfASubscriber(t, platform(t))
}

func TestTheStoryOfASubscriberWithEveryServiceItsOwnProcess(t *testing.T) {
	t.Parallel()
	theStoryOfASubscriber(t, own(t, stack.Processes, stack.Options{}))
}

func TestTheStoryOfASubscriberOnThreeNATSServers(t *testing.T) {
	t.Parallel()
	theStoryOfASubscriber(t, own(t, stack.Standalone, stack.Options{NATSServers: 3}))
}

// eventCredential is what the command line shows of one.
type eventCredential struct {
	Credential struct {
		ID, Name, Subject, Stream, Consumer string
	} `json:"event_credential"`
	Seed, URL string
}

// subscribed connects a plain NATS client as soon as the credential is known.
func subscribed(t *testing.T, url, seedFile string) *nats.Conn {
	t.Helper()
	key, err := nats.NkeyOptionFromSeed(seedFile)
	if err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		nc, err := nats.Connect(url, key, nats.NoReconnect())
		if err == nil {
			t.Cleanup(nc.Close)
			return nc
		}
		if time.Now().After(late) {
			t.Fatalf("connect to %s: %v", url, err)
		}
	}
}

// past reads so many events that nobody has acknowledged, and acknowledges them.
func past(t *testing.T, nc *nats.Conn, of eventCredential, n int) []jetstream.Msg {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	var all []jetstream.Msg
	for late := time.Now().Add(patience); len(all) < n; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("read %d events of the past, want %d", len(all), n)
		}
		consumer, err := js.Consumer(t.Context(), of.Credential.Stream, of.Credential.Consumer)
		if err != nil {
			continue // it is being made
		}
		batch, err := consumer.Fetch(n-len(all), jetstream.FetchMaxWait(time.Second))
		if err != nil {
			t.Fatal(err)
		}
		for m := range batch.Messages() {
			if err := m.DoubleAck(t.Context()); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
	}
	return all
}

// theStoryOfASubscriber is what the runbook of event subscriptions promises.
func theStoryOfASubscriber(t *testing.T, s *stack.Stack) {
	home := t.TempDir()
	slipway := func(args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), s.Binary("slipway"), args...)
		cmd.Dir, cmd.Env = home, []string{"HOME=" + home, "SLIPWAY_API_URL=" + s.API, "SLIPWAY_TOKEN=" + s.Token}
		var said strings.Builder
		cmd.Stderr = &said
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("slipway %s: %v: %s", strings.Join(args, " "), err, &said)
		}
		return string(out)
	}
	seed := filepath.Join(home, "reader.nk")
	reader := "reader-" + strings.ToLower(rand.Text()[:8])
	var made eventCredential
	if err := json.Unmarshal([]byte(slipway("--json", "events:credentials", "create", reader, "--expires-in", "1h", "--seed-file", seed)), &made); err != nil {
		t.Fatal(err)
	}
	if made.URL != s.Subscriptions || made.Seed != "" || made.Credential.Subject != "evt.default.>" {
		t.Fatalf("made %+v, want one of %s with its seed in the file alone", made, s.Subscriptions)
	}
	nc := subscribed(t, made.URL, seed)

	// The past, from the very first event on.
	first := past(t, nc, made, 2)
	// Live: what the organization does from now on, and nothing of others.
	live, err := nc.SubscribeSync(made.Credential.Subject)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	stranger := newPerson(t, s)
	expect(t, stranger.Client, http.StatusCreated, http.MethodPost, "/api/v1/api-keys", map[string]any{"name": "k", "scopes": []string{"deploy:read"}})
	heard := map[string]bool{}
	for late := time.Now().Add(patience); !heard["EventCredentialCreated"]; {
		if time.Now().After(late) {
			t.Fatalf("heard %v only", heard)
		}
		var other eventCredential
		if err := json.Unmarshal([]byte(slipway("--json", "events:credentials", "create", "other")), &other); err != nil {
			t.Fatal(err)
		}
		for {
			m, err := live.NextMsg(500 * time.Millisecond)
			if err != nil {
				break
			}
			if !strings.HasPrefix(m.Subject, "evt.default.") || m.Header.Get("ce-id") == "" || m.Header.Get("Nats-Sequence") == "" {
				t.Errorf("heard %s with %v", m.Subject, m.Header)
			}
			heard[m.Subject[strings.LastIndexByte(m.Subject, '.')+1:]] = true
		}
		slipway("events:credentials", "revoke", other.Credential.ID)
	}
	nc.Close()

	// Resumed by another connection, where it was acknowledged.
	nc = subscribed(t, made.URL, seed)
	before, err := first[1].Metadata()
	if err != nil {
		t.Fatal(err)
	}
	after, err := past(t, nc, made, 1)[0].Metadata()
	if err != nil || after.Sequence.Consumer != before.Sequence.Consumer+1 || after.Sequence.Stream <= before.Sequence.Stream {
		t.Errorf("resumed at %+v after %+v, %v", after, before, err)
	}
	// Nothing else.
	if err := nc.Publish("evt.default.deployment.d.DeploymentDestroyed", nil); err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil || nc.LastError() == nil || !strings.Contains(strings.ToLower(nc.LastError().Error()), "permissions violation") {
		t.Errorf("sent an event: %v, %v", err, nc.LastError())
	}

	if list := slipway("events:credentials", "list"); !strings.Contains(list, reader) {
		t.Errorf("listed %s", list)
	}
	since := time.Now()
	if said := slipway("events:credentials", "revoke", made.Credential.ID); said != "Revoked.\n" {
		t.Errorf("revoke said %q", said)
	}
	for answered := time.Now(); nc.IsConnected(); time.Sleep(time.Millisecond) {
		if time.Since(answered) > time.Second {
			t.Fatalf("revoked for %v, and still connected", time.Since(since))
		}
	}
	key, err := nats.NkeyOptionFromSeed(seed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := nats.Connect(made.URL, key); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("revoked, and connects: %v", err)
	}
	if list := slipway("events:credentials", "list"); strings.Contains(list, reader) {
		t.Errorf("revoked, and listed: %s", list)
	}
}
