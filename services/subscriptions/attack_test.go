package subscriptions_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// siege is acme's client, which attacks, and other's, which is the victim.
type siege struct {
	*house
	thief, victim *client
	// stored is how much the platform holds before.
	stored map[string]uint64
}

func besiege(t *testing.T) *siege {
	t.Helper()
	h := begin(t)
	h.running("other", "secret")
	bucket, err := h.js.KeyValue(t.Context(), subjects.BucketRoutes)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bucket.Put(t.Context(), "victim.example.com", []byte("route")); err != nil {
		t.Fatal(err)
	}
	s := &siege{house: h, thief: h.connect(h.credential("acme", "ada", "c1")), victim: h.connect(h.credential("other", "eve", "v1"))}
	s.thief.consumer(t, "c1")
	s.victim.consumer(t, "v1")
	s.stored = s.count()
	return s
}

// count is how many messages and consumers each stream has.
func (s *house) count() map[string]uint64 {
	s.t.Helper()
	all := map[string]uint64{}
	list := s.js.ListStreams(s.t.Context())
	for info := range list.Info() {
		all[info.Config.Name] = info.State.LastSeq<<16 | uint64(info.State.Consumers)
	}
	if err := list.Err(); err != nil {
		s.t.Fatal(err)
	}
	return all
}

// unharmed fails when the platform holds anything else than before.
func (s *siege) unharmed() {
	s.t.Helper()
	if now := s.count(); fmt.Sprint(now) != fmt.Sprint(s.stored) {
		s.t.Errorf("the platform held %v and holds %v", s.stored, now)
	}
}

const refusedWord = "permissions violation"

func TestNothingElseMayBeSent(t *testing.T) {
	t.Parallel()
	s := besiege(t)
	victims := subjects.SubscriptionConsumer("v1")
	own := subjects.SubscriptionConsumer("c1")
	create := func(config string) string { return `{"stream_name":"EVENTS","action":"","config":` + config + `}` }
	for _, a := range []struct{ subject, body string }{
		// Events, of anybody.
		{"evt.acme.deployment.d1.DeploymentDestroyed", ""}, {"evt.other.deployment.d1.DeploymentDestroyed", ""}, {"evt._.claim.subdomain-x.ClaimTaken", ""},
		{"live.evt.acme.deployment.d1.DeploymentDestroyed", ""}, {"live.evt.other.deployment.d1.DeploymentDestroyed", ""},
		// What other parts of the platform say.
		{"svc.env.n1.i1", ""}, {"edge.applied.e1", ""}, {"probe.other.d.i", ""}, {"delivery.other.w.d", ""},
		{"$KV." + subjects.BucketRoutes + ".victim.example.com", "gone"}, {"$KV." + subjects.BucketKeys + ".x", ""}, {"$KV." + subjects.BucketDesired + ".n1.i1", ""},
		// Answers to others.
		{"_INBOX.victim", ""}, {"_R_.x.y", ""}, {"_INBOX_NODE.n1.x", ""},
		// Consumers of their own: another filter, several, none, pushed to others, with their own name or without.
		{"$JS.API.CONSUMER.CREATE.EVENTS", create(`{"filter_subject":"evt.other.>"}`)},
		{"$JS.API.CONSUMER.CREATE.EVENTS.x", create(`{"name":"x","filter_subjects":["evt.acme.>","evt.other.>"]}`)},
		{"$JS.API.CONSUMER.CREATE.EVENTS.x.evt.acme.>", create(`{"name":"x","filter_subject":"evt.acme.>","deliver_subject":"$KV.VIEW_routes.victim.example.com"}`)},
		{"$JS.API.CONSUMER.CREATE.EVENTS." + own + ".evt.other.>", create(`{"durable_name":"` + own + `","filter_subject":"evt.other.>"}`)},
		{"$JS.API.CONSUMER.CREATE.EVENTS." + own, create(`{"durable_name":"` + own + `"}`)},
		{"$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.x", create(`{"durable_name":"x"}`)},
		// Others' consumers, and all of them.
		{"$JS.API.CONSUMER.INFO.EVENTS." + victims, ""}, {"$JS.API.CONSUMER.MSG.NEXT.EVENTS." + victims, "1"}, {"$JS.API.CONSUMER.MSG.NEXT.EVENTS.webhooks", "1"},
		{"$JS.API.CONSUMER.DELETE.EVENTS." + victims, ""}, {"$JS.API.CONSUMER.DELETE.EVENTS." + own, ""}, {"$JS.API.CONSUMER.PAUSE.EVENTS." + victims, ""},
		{"$JS.API.CONSUMER.LIST.EVENTS", ""}, {"$JS.API.CONSUMER.NAMES.EVENTS", ""}, {"$JS.API.CONSUMER.UNPIN.EVENTS." + victims, "{}"},
		{"$JS.API.CONSUMER.RESET.EVENTS." + own, "{}"}, {"$JS.API.CONSUMER.LEADER.STEPDOWN.EVENTS." + own, ""},
		{"$JS.ACK.EVENTS." + victims + ".1.1.1.1.0", "+TERM"}, {"$JS.FC.EVENTS." + victims + ".x", ""},
		// Messages by their number or subject.
		{"$JS.API.STREAM.MSG.GET.EVENTS", `{"seq":1}`}, {"$JS.API.STREAM.MSG.GET.EVENTS", `{"last_by_subj":"evt.other.>"}`},
		{"$JS.API.DIRECT.GET.EVENTS", `{"seq":2}`}, {"$JS.API.DIRECT.GET.EVENTS.evt.other.deployment.secret.DeploymentRunning", ""},
		{"$JS.API.DIRECT.GET.KV_VIEW_routes.$KV.VIEW_routes.victim.example.com", ""}, {"$JS.API.STREAM.MSG.DELETE.EVENTS", `{"seq":1}`},
		// Streams.
		{"$JS.API.INFO", ""}, {"$JS.API.ACCOUNT.INFO", ""}, {"$JS.API.STREAM.LIST", ""}, {"$JS.API.STREAM.NAMES", ""}, {"$JS.API.STREAM.INFO.EVENTS", ""}, {"$JS.API.STREAM.INFO.KV_KEYS", ""},
		{"$JS.API.STREAM.CREATE.MINE", `{"name":"MINE","subjects":["mine.>"]}`}, {"$JS.API.STREAM.UPDATE.EVENTS", `{"name":"EVENTS"}`},
		{"$JS.API.STREAM.PURGE.EVENTS", ""}, {"$JS.API.STREAM.DELETE.EVENTS", ""}, {"$JS.API.STREAM.SNAPSHOT.EVENTS", `{"deliver_subject":"_INBOX.x"}`},
		// By the name that the leaf node uses, a domain's, the system's.
		{"$JS.evt.API.CONSUMER.MSG.NEXT.EVENTS." + victims, "1"}, {"$JS.evt.API.CONSUMER.INFO.EVENTS." + own, ""}, {"$JS.evt.API.STREAM.INFO.EVENTS", ""}, {"$JS.hub.API.INFO", ""},
		{"$SYS.REQ.SERVER.PING", ""}, {"$SYS.REQ.USER.INFO", ""}, {"$SYS.REQ.ACCOUNT.PING.CONNZ", ""},
	} {
		if err := s.thief.Publish(a.subject, []byte(a.body)); err != nil {
			t.Fatalf("%s: %v", a.subject, err)
		}
		if err := refusal(t, s.thief); !strings.Contains(err, refusedWord) || !strings.Contains(err, strings.ToLower(a.subject)) {
			t.Errorf("%s %s: %s", a.subject, a.body, err)
		}
		if m, err := s.thief.Request(a.subject, []byte(a.body), 20*time.Millisecond); err == nil {
			t.Errorf("%s %s was answered %q", a.subject, a.body, m.Data)
		}
		refusal(t, s.thief)
	}
	s.unharmed()
	if !s.thief.IsConnected() {
		t.Error("the client was cut off, so that the last of these were not tried")
	}
}

func TestNothingElseIsHeard(t *testing.T) {
	t.Parallel()
	s := besiege(t)
	for _, subject := range []string{
		">", "*", "evt.>", "evt.*.>", "evt.*.deployment.>", "evt.other.>", "evt.other.deployment.secret.DeploymentRunning", "evt._.>", "live.>", "live.evt.acme.>", "live.evt.other.>",
		"$KV.>", "$JS.>", "$JS.API.>", "$JS.ACK.>", "$JS.EVENT.ADVISORY.>", "$JS.EVENT.>", "$SYS.>", "_R_.>", "_INBOX_NODE.>", "svc.>", "probe.>", "edge.>", "delivery.>",
	} {
		heard, err := s.thief.SubscribeSync(subject)
		if err != nil {
			t.Fatal(err)
		}
		if err := refusal(t, s.thief); !strings.Contains(err, refusedWord) {
			t.Errorf("%s: %s", subject, err)
		}
		if _, err := s.thief.QueueSubscribeSync(subject, "workers"); err != nil {
			t.Fatal(err)
		}
		if err := refusal(t, s.thief); !strings.Contains(err, refusedWord) {
			t.Errorf("%s in a queue: %s", subject, err)
		}
		if m, err := heard.NextMsg(time.Millisecond); err == nil {
			t.Errorf("%s heard %s", subject, m.Subject)
		}
	}
	s.unharmed()
}

// Where an answer goes is for who asks to say: not to others, and not into the log.
func TestAnswersGoNowhereElse(t *testing.T) {
	t.Parallel()
	s := besiege(t)
	eavesdropper, err := s.js.Conn().SubscribeSync(">")
	if err != nil {
		t.Fatal(err)
	}
	heard, err := s.victim.SubscribeSync("evt.other.>")
	if err != nil {
		t.Fatal(err)
	}
	all, err := s.victim.SubscribeSync("_INBOX.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.victim.Flush(), s.js.Conn().Flush()); err != nil {
		t.Fatal(err)
	}
	api := subjects.ClientsConsumerAPI(subjects.SubscriptionConsumer("c1"))
	targets := []string{
		"evt.other.deployment.d1.DeploymentDestroyed", "evt.acme.deployment.d1.DeploymentDestroyed", "$KV." + subjects.BucketRoutes + ".victim.example.com",
		"_INBOX.victim", "svc.env.n1.i1", "live.evt.other.deployment.d1.DeploymentDestroyed", "$JS.API.STREAM.DELETE.KV_KEYS", "$JS.evt.API.STREAM.DELETE.KV_KEYS",
	}
	for _, reply := range targets {
		for _, ask := range []struct{ subject, body string }{{api.Info, ""}, {api.Next, `{"batch":1,"no_wait":true}`}, {api.Ack[:len(api.Ack)-1] + "1.1.1.1.0", "+NXT"}} {
			if err := s.thief.PublishRequest(ask.subject, reply, []byte(ask.body)); err != nil {
				t.Fatal(err)
			}
		}
		traced := nats.NewMsg(api.Info)
		traced.Header.Set("Nats-Trace-Dest", reply)
		traced.Header.Set("Nats-Request-Info", `{"acc":"$G","svc":"$G"}`)
		if err := s.thief.PublishMsg(traced); err != nil {
			t.Fatal(err)
		}
	}
	// Asked after all of those, so answered after them.
	s.thief.consumer(t, "c1")
	for _, sub := range []*nats.Subscription{heard, all} {
		if m, err := sub.NextMsg(300 * time.Millisecond); err == nil {
			t.Errorf("the victim heard %s: %q", m.Subject, m.Data)
		}
	}
	for {
		m, err := eavesdropper.NextMsg(100 * time.Millisecond)
		if err != nil {
			break
		}
		for _, target := range targets {
			if m.Subject == target {
				t.Errorf("the platform was sent %s: %q", m.Subject, m.Data)
			}
		}
	}
	s.unharmed()
}

// A consumer gives its reader what its credential is for, whatever the request says.
func TestItsOwnConsumerGivesNothingElse(t *testing.T) {
	t.Parallel()
	s := besiege(t)
	for range 5 {
		s.running("other", "secret")
		s.running("acme", "d1")
	}
	for _, m := range read(t, s.thief.consumer(t, "c1"), 7) {
		if !strings.HasPrefix(m.Subject(), "evt.acme.") {
			t.Errorf("it gives %s", m.Subject())
		}
	}
	info, err := s.thief.consumer(t, "c1").Info(within(t, patience))
	if err != nil || info.Config.FilterSubject != "evt.acme.>" {
		t.Fatal(info, err)
	}
	told, err := json.Marshal(info)
	if err != nil || strings.Contains(string(told), "other") {
		t.Errorf("it tells %s, %v", told, err)
	}
	js, err := jetstream.New(s.thief.Conn)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.OrderedConsumer(within(t, 300*time.Millisecond), subjects.StreamEvents, jetstream.OrderedConsumerConfig{FilterSubjects: []string{"evt.other.>"}}); err == nil {
		t.Error("it made another consumer")
	}
}

// The key of the door itself is good for joining as a leaf node, and for no more than
// the door needs: a server that stole it hears tenants' events and reads consumers.
func TestTheDoorsKeyIsGoodForNothingElse(t *testing.T) {
	t.Parallel()
	h := begin(t)
	if nc, err := natsconn.Connect(natsconn.Config{URL: h.js.Conn().ConnectedUrl(), SeedFile: h.config.LeafKey, Name: "thief", Log: discard()}); err == nil {
		nc.Close()
		t.Error("it connects as a client")
	}
	thief := rogue(t, h)
	heard := make(chan *nats.Msg, 100)
	for _, subject := range []string{"live.>", "live.evt._.>", "evt.>", "$KV.>", "svc.>", "$JS.>", "_INBOX.>", ">"} {
		if _, err := thief.ChanSubscribe(subject, heard); err != nil {
			t.Fatal(err)
		}
	}
	if err := thief.Flush(); err != nil {
		t.Fatal(err)
	}
	before := h.count()
	for _, subject := range []string{
		"evt.acme.deployment.d1.DeploymentDestroyed", "live.evt.acme.deployment.d1.DeploymentDestroyed", "$KV." + subjects.BucketRoutes + ".victim.example.com",
		"$JS.API.STREAM.PURGE.KV_" + subjects.BucketRoutes, "$JS.evt.API.STREAM.DELETE.KV_" + subjects.BucketRoutes, "$JS.evt.API.STREAM.MSG.GET.EVENTS", "$JS.evt.API.CONSUMER.CREATE.EVENTS",
	} {
		if m, err := thief.Request(subject, []byte(`{"seq":1}`), 100*time.Millisecond); err == nil {
			t.Errorf("%s was answered %q", subject, m.Data)
		}
	}
	if now := h.count(); fmt.Sprint(now) != fmt.Sprint(before) {
		t.Errorf("the platform held %v and holds %v", before, now)
	}
	// What it hears of its own requests aside, only tenants' events come.
	until(t, "it hears of a tenant's event", func() bool {
		h.occur(subjects.Platform, subjects.Claim, "subdomain-x", &claimv1.ClaimTaken{Kind: "subdomain", Name: "x"})
		if _, err := h.js.Conn().Request("svc.env.n1.i1", []byte("ask"), time.Millisecond); err == nil {
			t.Error("somebody answers for a node")
		}
		h.running("acme", "d1")
		for {
			select {
			case m := <-heard:
				switch {
				case strings.HasPrefix(m.Subject, "live.evt.acme.deployment."):
					if len(m.Data) > 10 {
						return true
					}
				case strings.HasPrefix(m.Subject, "live.evt._."), m.Header.Get("ce-id") != "" && !strings.HasPrefix(m.Subject, "live."), string(m.Data) == "ask":
					t.Errorf("it hears %s", m.Subject)
				}
			case <-time.After(100 * time.Millisecond):
				return false
			}
		}
	})
}

// rogue is a client of a server that joins as a leaf node with the door's key.
func rogue(t *testing.T, h *house) *nats.Conn {
	t.Helper()
	seed, err := os.ReadFile(h.config.LeafKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := url.Parse(h.config.Leaf)
	if err != nil {
		t.Fatal(err)
	}
	options := &server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, NoSigs: true, NoLog: true, NoSystemAccount: true}
	options.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{leaf}, Nkey: strings.TrimSpace(string(seed))}}
	ns, err := server.NewServer(options)
	if err != nil {
		t.Fatal(err)
	}
	ns.Start()
	t.Cleanup(func() { ns.Shutdown(); ns.WaitForShutdown() })
	until(t, "the rogue server joins", func() bool { return ns.NumLeafNodes() > 0 })
	nc, err := nats.Connect(ns.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}
