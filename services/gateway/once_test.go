package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	deployv1 "github.com/slipway-paas/slipway/gen/slipway/deploy/v1"
	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
)

// gateways are several over one NATS server and one scheduler.
func gateways(t *testing.T, n int) []*stage {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	keys, err := natsconn.EnsureKeys(t.TempDir())
	must(err)
	server, err := natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Keys: keys, Log: quiet})
	must(err)
	t.Cleanup(server.Stop)
	master := filepath.Join(t.TempDir(), "master.key")
	var all []*stage
	for i := range n {
		nc, err := natsconn.Connect(natsconn.Config{Server: server, SeedFile: server.SeedFile(natsconn.RolePlatform), Role: natsconn.RolePlatform, Name: "test", Log: quiet})
		must(err)
		t.Cleanup(nc.Close)
		js, err := jetstream.New(nc, jetstream.WithDefaultTimeout(patience))
		must(err)
		must(natsconn.Provision(t.Context(), js, 1))
		bucket, err := js.KeyValue(t.Context(), subjects.BucketKeys)
		must(err)
		sealer, err := seal.Unlock(t.Context(), seal.From{File: master}, bucket)
		must(err)
		kept, err := js.KeyValue(t.Context(), subjects.BucketAnswers)
		must(err)
		// Nobody is taken for dead, and nobody told to come back, for being slow.
		answers, err := idempotency.New(idempotency.Config{Lease: patience, Wait: patience}, js, kept, sealer, time.Now, quiet)
		must(err)
		all = append(all, begin(t, func(_ *gateway.Config, d *gateway.Deps) {
			d.Answers = answers
			if i > 0 {
				d.Scheduler = all[0].schedulerClient
			}
		}))
	}
	return all
}

const (
	apps  = "/api/deploy/apps"
	asked = `{"subdomain":"my-app","image":"ghcr.io/a/b","tier":"btc-pro"}`
)

func TestARepeatedPostIsAnsweredAsTheFirst(t *testing.T) {
	t.Parallel()
	g := gateways(t, 2)
	first := g[0].call(t, "POST", apps, asked, `Idempotency-Key: "key-1"`)
	if first.status != 201 || first.header.Get("Idempotent-Replayed") != "" {
		t.Fatalf("%d %s", first.status, first.body)
	}
	for _, s := range []*stage{g[1], g[0]} {
		again := s.call(t, "POST", apps, asked, "Idempotency-Key: key-1")
		if again.status != 201 || again.body != first.body || again.header.Get("Content-Type") != first.header.Get("Content-Type") {
			t.Errorf("first\n%d %s\nand again\n%d %s", first.status, first.body, again.status, again.body)
		}
		if again.header.Get("Idempotent-Replayed") != "true" || again.header.Get("X-Request-Id") == first.header.Get("X-Request-Id") {
			t.Errorf("again with %v", again.header)
		}
	}
	// What is refused for good is refused the same again.
	refused := g[0].call(t, "POST", apps, `{"nonsense":1}`, "Idempotency-Key: key-2")
	if again := g[1].call(t, "POST", apps, `{"nonsense":1}`, "Idempotency-Key: key-2"); again.body != refused.body || again.status < 400 || again.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("first %s, and again %d %s", refused.body, again.status, again.body)
	}
	if n := len(g[0].scheduler.commands); n != 1 {
		t.Fatalf("asked for %d times", n)
	}

	wantProblem(t, g[1].call(t, "POST", apps, asked+" ", "Idempotency-Key: key-1"), 422, "idempotency_key_reused")
	wantProblem(t, g[1].call(t, "POST", apps, asked, `Idempotency-Key: "key-1`), 400, "malformed_request")
	for i, other := range [][]string{{"Idempotency-Key: key-3"}, {}, {"Idempotency-Key: key-1", "Authorization: Bearer " + strangerToken}} {
		if got := g[1].call(t, "POST", apps, asked, other...); got.status != 201 || got.body == first.body {
			t.Errorf("with %v: %d %s", other, got.status, got.body)
		}
		if n := len(g[0].scheduler.commands); n != i+2 {
			t.Errorf("with %v: asked for %d times", other, n)
		}
	}
	// Who may not is not told what another was.
	wantProblem(t, g[1].call(t, "POST", apps, asked, "Idempotency-Key: key-1", "Authorization: Bearer nope"), 401, "unauthorized")
	wantProblem(t, g[1].call(t, "POST", apps, asked, "Idempotency-Key: key-1", "Authorization: Bearer "+readerToken), 403, "forbidden")
}

func TestTheSameKeyIsAnothersAtAnotherEndpoint(t *testing.T) {
	t.Parallel()
	s := gateways(t, 1)[0]
	id := s.requested(t)
	stop := s.call(t, "POST", apps+"/"+id+"/stop", "", "Idempotency-Key: key-1")
	restart := s.call(t, "POST", apps+"/"+id+"/restart", "", "Idempotency-Key: key-1")
	if stop.status != 200 || restart.status != 200 || restart.header.Get("Idempotent-Replayed") != "" {
		t.Errorf("%d %s, %d %s", stop.status, stop.body, restart.status, restart.body)
	}
	// Other methods repeat well without.
	for range 2 {
		got := s.call(t, "GET", apps, "", "Idempotency-Key: \"")
		if got.status != 200 || got.header.Get("Idempotent-Replayed") != "" {
			t.Errorf("GET: %d", got.status)
		}
	}
}

func TestFiftyOfTheSamePostMakeOneDeployment(t *testing.T) {
	t.Parallel()
	g := gateways(t, 2)
	replies := make([]reply, 50)
	var all sync.WaitGroup
	for i := range replies {
		all.Go(func() { replies[i] = g[i%2].call(t, "POST", apps, asked, "Idempotency-Key: key-1") })
	}
	all.Wait()
	for _, r := range replies {
		if r.status != 201 || r.body != replies[0].body {
			t.Errorf("%d %s and %d %s", replies[0].status, replies[0].body, r.status, r.body)
		}
	}
	if n := len(g[0].scheduler.commands); n != 1 {
		t.Errorf("asked for %d times", n)
	}
}

func TestARetryGivesTheSameCommand(t *testing.T) {
	t.Parallel()
	g := gateways(t, 2)
	g[0].scheduler.set(func(f *fakeScheduler) { f.fails = problem.Unavailable("The event log is not answering.", time.Second) })
	wantProblem(t, g[0].call(t, "POST", apps, asked, "Idempotency-Key: key-1"), 503, "unavailable")
	g[0].scheduler.set(func(f *fakeScheduler) { f.fails = nil })
	if got := g[1].call(t, "POST", apps, asked, "Idempotency-Key: key-1"); got.status != 201 {
		t.Errorf("%d %s", got.status, got.body)
	}
	ids := g[0].scheduler.commands
	if len(ids) != 2 || ids[0] == "" || ids[0] != ids[1] {
		t.Errorf("the commands' IDs are %q", ids)
	}
	g[1].call(t, "POST", apps, asked)
	if last := g[0].scheduler.commands[2]; last != "" {
		t.Errorf("without a key the command has the ID %q", last)
	}
}

// The metadata of gRPC means what the header does.
func TestARepeatedCallOverGRPCIsAnsweredAsTheFirst(t *testing.T) {
	t.Parallel()
	g := gateways(t, 2)
	type answered struct {
		out      *deployv1.CreateDeploymentResponse
		code     codes.Code
		replayed []string
	}
	create := func(s *stage, token, subdomain string, keys ...string) answered {
		t.Helper()
		conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
		for _, key := range keys {
			ctx = metadata.AppendToOutgoingContext(ctx, "idempotency-key", key)
		}
		var header metadata.MD
		out, err := deployv1.NewDeployServiceClient(conn).CreateDeployment(ctx, &deployv1.CreateDeploymentRequest{Subdomain: subdomain, Image: "ghcr.io/a/b", Tier: "btc-pro"}, grpc.Header(&header))
		return answered{out, status.Code(err), header.Get("Idempotent-Replayed")}
	}
	first := create(g[0], ownerToken, "my-app", "key-1")
	if first.code != codes.OK || len(first.replayed) > 0 {
		t.Fatalf("the first: %v", first)
	}
	for _, s := range []*stage{g[1], g[0]} {
		if again := create(s, ownerToken, "my-app", "key-1"); !proto.Equal(again.out, first.out) || len(again.replayed) != 1 {
			t.Errorf("again: %v, want %v", again, first)
		}
	}
	if ids := g[0].scheduler.commands; len(ids) != 1 || ids[0] == "" {
		t.Fatalf("asked for under the IDs %q", ids)
	}
	if other := create(g[1], ownerToken, "other", "key-1"); other.code != codes.InvalidArgument && other.code != codes.FailedPrecondition {
		t.Errorf("another request with the same key: %v", other)
	}
	if bad := create(g[1], ownerToken, "my-app", "a", "b"); bad.code != codes.InvalidArgument {
		t.Errorf("two keys: %v", bad)
	}
	if refused := create(g[1], "nope", "my-app", "key-1"); refused.code != codes.Unauthenticated {
		t.Errorf("who may not: %v", refused)
	}
	if theirs := create(g[1], strangerToken, "my-app", "key-1"); theirs.code != codes.OK || proto.Equal(theirs.out, first.out) || len(theirs.replayed) > 0 {
		t.Errorf("another's with the same key: %v", theirs)
	}
	// What was refused for good is refused the same.
	g[0].scheduler.set(func(f *fakeScheduler) {
		f.fails = problem.Validation([]problem.Field{{Field: "image", Message: "is none"}})
	})
	once := create(g[0], ownerToken, "bad", "key-2")
	g[0].scheduler.set(func(f *fakeScheduler) { f.fails = nil })
	if again := create(g[1], ownerToken, "bad", "key-2"); once.code != codes.InvalidArgument || again.code != once.code || len(again.replayed) != 1 {
		t.Errorf("refused %v, and again %v", once, again)
	}
}

// Who hangs up does not lose the answer.
func TestAnAnswerIsKeptForAClientThatWentAway(t *testing.T) {
	t.Parallel()
	g := gateways(t, 2)
	held := make(chan struct{})
	g[0].scheduler.set(func(f *fakeScheduler) { f.held = held })
	ctx, hangUp := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "POST", g[0].url+apps, strings.NewReader(asked))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer " + ownerToken}, "Idempotency-Key": {"key-1"}}
	gone := make(chan error, 1)
	go func() {
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			_, _ = io.Copy(io.Discard, res.Body)
			_ = res.Body.Close()
		}
		gone <- err
	}()
	count := func() (n int) {
		g[0].scheduler.set(func(f *fakeScheduler) { n = len(f.commands) })
		return n
	}
	eventually(t, "the command is given", func() bool { return count() == 1 })
	hangUp()
	if err := <-gone; err == nil {
		t.Fatal("the client got an answer after all")
	}
	close(held)
	got := g[1].call(t, "POST", apps, asked, "Idempotency-Key: key-1")
	if got.status != 201 || got.header.Get("Idempotent-Replayed") != "true" || count() != 1 {
		t.Errorf("%d %s; asked for %d times", got.status, got.body, count())
	}
}
