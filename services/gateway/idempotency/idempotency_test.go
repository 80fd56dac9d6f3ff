package idempotency_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/natsconn"
	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/seal"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/gateway/idempotency"
)

// ground is a NATS server that several gateways share, and their clock.
type ground struct {
	server *natsconn.Embedded
	master string
	at     atomic.Int64
}

func newGround(t testing.TB) *ground {
	t.Helper()
	keys, err := natsconn.EnsureKeys(t.TempDir())
	must(t, err)
	g := &ground{master: filepath.Join(t.TempDir(), "master.key")}
	g.server, err = natsconn.StartEmbedded(natsconn.EmbeddedConfig{Listen: "127.0.0.1:0", StoreDir: t.TempDir(), Keys: keys, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(g.server.Stop)
	g.at.Store(time.Date(2026, 5, 21, 10, 0, 0, 0, time.UTC).UnixNano())
	return g
}

func (g *ground) now() time.Time          { return time.Unix(0, g.at.Load()).UTC() }
func (g *ground) advance(d time.Duration) { g.at.Add(int64(d)) }

// keeper is that of one more gateway, and its connection.
func (g *ground) keeper(t testing.TB, c idempotency.Config) (*idempotency.Keeper, *nats.Conn) {
	t.Helper()
	nc, err := natsconn.Connect(natsconn.Config{URL: g.server.URL(), SeedFile: g.server.SeedFile(natsconn.RolePlatform), Role: natsconn.RolePlatform, Name: "test", Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	must(t, err)
	must(t, natsconn.Provision(t.Context(), js, 1))
	keys, err := js.KeyValue(t.Context(), subjects.BucketKeys)
	must(t, err)
	sealer, err := seal.Unlock(t.Context(), seal.From{File: g.master}, keys)
	must(t, err)
	bucket, err := js.KeyValue(t.Context(), subjects.BucketAnswers)
	must(t, err)
	k, err := idempotency.New(c, js, bucket, sealer, g.now, slog.New(slog.DiscardHandler))
	must(t, err)
	return k, nc
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func request(body string) idempotency.Request {
	return idempotency.Request{Owner: subjects.Of("acme", subjects.Operator, "op-1"), Endpoint: "POST /apps", Key: "key-1", Content: []byte(body)}
}

// calls answers each call another way and notes the IDs of the commands.
type calls struct {
	mu     sync.Mutex
	ids    []string
	status int
}

func (c *calls) run(_ context.Context, id string) idempotency.Answer {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = append(c.ids, id)
	status := c.status
	if status == 0 {
		status = http.StatusCreated
	}
	return idempotency.Answer{
		Status: status, Header: http.Header{"Content-Type": {"application/json"}, "Location": {fmt.Sprint("/apps/", len(c.ids))}},
		Body: fmt.Appendf(nil, "{\"n\": %d,\t\"raw\": \"\xff\"}\n", len(c.ids)),
	}
}

func do(t testing.TB, k *idempotency.Keeper, r idempotency.Request, c *calls) idempotency.Answer {
	t.Helper()
	answer, _, err := k.Do(t.Context(), r, c.run)
	must(t, err)
	return answer
}

// refused checks that the request is refused as it should be, without being carried out.
func refused(t testing.TB, k *idempotency.Keeper, r idempotency.Request, status int, code string) {
	t.Helper()
	_, _, err := k.Do(t.Context(), r, func(context.Context, string) idempotency.Answer {
		t.Error("it was carried out")
		return idempotency.Answer{}
	})
	var p *problem.Error
	if !errors.As(err, &p) || p.Status != status || p.Code != code {
		t.Errorf("got %v, want %d %s", err, status, code)
	}
	if status == http.StatusConflict && code == idempotency.CodeUnderWay && (p == nil || p.RetryAfter <= 0) {
		t.Error("it does not say when to try again")
	}
}

func TestTheFirstAnswerIsGivenAgain(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	one, _ := g.keeper(t, idempotency.Config{})
	two, _ := g.keeper(t, idempotency.Config{})
	first := do(t, one, request(`{"a":1}`), c)
	for _, k := range []*idempotency.Keeper{one, two, one} {
		again, replayed, err := k.Do(t.Context(), request(`{"a":1}`), c.run)
		must(t, err)
		if diff := cmp.Diff(first, again); diff != "" || !replayed {
			t.Errorf("replayed %v: %s", replayed, diff)
		}
		g.advance(7 * time.Hour)
	}
	if len(c.ids) != 1 {
		t.Errorf("carried out %d times", len(c.ids))
	}
	refused(t, two, request(`{"a": 1}`), http.StatusUnprocessableEntity, idempotency.CodeReused)
}

func TestKeysAreOfOneOwnerAndEndpoint(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	k, _ := g.keeper(t, idempotency.Config{})
	for _, change := range []func(*idempotency.Request){
		func(*idempotency.Request) {},
		func(r *idempotency.Request) { r.Owner.ID = "op-2" },
		func(r *idempotency.Request) { r.Owner.Org = "other" },
		func(r *idempotency.Request) { r.Endpoint = "POST /apps/1/stop" },
		func(r *idempotency.Request) { r.Key = "key-2" },
		// Parts do not run into each other.
		func(r *idempotency.Request) { r.Endpoint, r.Key = r.Endpoint+"k", "ey-1" },
	} {
		r := request("{}")
		change(&r)
		do(t, k, r, c)
		do(t, k, r, c)
	}
	if len(c.ids) != 6 {
		t.Errorf("carried out %d times, want 6", len(c.ids))
	}
}

func TestOfManyAtOnceOneIsCarriedOut(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	var keepers []*idempotency.Keeper
	for range 2 {
		k, _ := g.keeper(t, idempotency.Config{})
		keepers = append(keepers, k)
	}
	answers := make([]idempotency.Answer, 50)
	var all sync.WaitGroup
	for i := range answers {
		all.Go(func() {
			var err error
			if answers[i], _, err = keepers[i%2].Do(t.Context(), request("{}"), c.run); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(c.ids) != 1 {
		t.Errorf("carried out %d times", len(c.ids))
	}
	for _, a := range answers {
		if diff := cmp.Diff(answers[0], a); diff != "" {
			t.Fatal(diff)
		}
	}
}

// The gateway dies after the command, before its answer is kept: the next attempt gives
// the command under the same ID, and not before the dead one's lease has run out.
func TestAnotherGatewayTakesOver(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	dying, line := g.keeper(t, idempotency.Config{Lease: time.Minute})
	do(t, dying, func() idempotency.Request { r := request("{}"); r.Key = "warm"; return r }(), &calls{})
	_, _, err := dying.Do(t.Context(), request("{}"), func(ctx context.Context, id string) idempotency.Answer {
		line.Close()
		return c.run(ctx, id)
	})
	must(t, err)
	other, _ := g.keeper(t, idempotency.Config{Lease: time.Minute, Wait: 50 * time.Millisecond})
	refused(t, other, request("{}"), http.StatusConflict, idempotency.CodeUnderWay)
	refused(t, other, request("{ }"), http.StatusUnprocessableEntity, idempotency.CodeReused)
	g.advance(time.Minute)
	second := do(t, other, request("{}"), c)
	if len(c.ids) != 2 || c.ids[0] != c.ids[1] {
		t.Errorf("the command was given under the IDs %v", c.ids)
	}
	if diff := cmp.Diff(second, do(t, other, request("{}"), c)); diff != "" || len(c.ids) != 2 {
		t.Errorf("carried out %d times: %s", len(c.ids), diff)
	}
}

// One that lives, however long it takes, is not taken over.
func TestALongRequestKeepsItsLease(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	lease := 300 * time.Millisecond
	one, _ := g.keeper(t, idempotency.Config{Lease: lease})
	two, _ := g.keeper(t, idempotency.Config{Lease: lease, Wait: 30 * time.Millisecond})
	started, end := make(chan struct{}), make(chan struct{})
	done := make(chan idempotency.Answer, 1)
	go func() {
		answer, _, err := one.Do(context.WithoutCancel(t.Context()), request("{}"), func(ctx context.Context, id string) idempotency.Answer {
			close(started)
			<-end
			return (&calls{}).run(ctx, id)
		})
		if err != nil {
			t.Error(err)
		}
		done <- answer
	}()
	<-started
	// The leases are real here: their time passes as the clock's does.
	for begun := time.Now(); time.Since(begun) < 3*lease; {
		before := time.Now()
		refused(t, two, request("{}"), http.StatusConflict, idempotency.CodeUnderWay)
		g.advance(time.Since(before))
	}
	close(end)
	first := <-done
	again, replayed, err := two.Do(t.Context(), request("{}"), (&calls{}).run)
	must(t, err)
	if diff := cmp.Diff(first, again); diff != "" || !replayed {
		t.Errorf("replayed %v: %s", replayed, diff)
	}
}

// An attempt that was taken for dead, and was not, gives the answer that the others have.
func TestWhoWasTakenForDeadGivesTheSameAnswer(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	one, _ := g.keeper(t, idempotency.Config{Lease: time.Hour})
	two, _ := g.keeper(t, idempotency.Config{Lease: time.Hour})
	var others idempotency.Answer
	mine, replayed, err := one.Do(t.Context(), request("{}"), func(ctx context.Context, id string) idempotency.Answer {
		g.advance(time.Hour)
		others = do(t, two, request("{}"), c)
		return c.run(ctx, id)
	})
	must(t, err)
	if diff := cmp.Diff(others, mine); diff != "" || !replayed {
		t.Errorf("replayed %v: %s", replayed, diff)
	}
	if c.ids[0] != c.ids[1] {
		t.Errorf("the command was given under the IDs %v", c.ids)
	}
}

func TestAKeyIsForgottenAfterADay(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	k, _ := g.keeper(t, idempotency.Config{})
	do(t, k, request("{}"), c)
	g.advance(24*time.Hour - time.Second)
	do(t, k, request("{}"), c)
	if len(c.ids) != 1 {
		t.Fatalf("carried out %d times within a day", len(c.ids))
	}
	g.advance(time.Second)
	do(t, k, request(`{"other":1}`), c)
	if len(c.ids) != 2 || c.ids[0] == c.ids[1] {
		t.Errorf("after a day the command was given under %v", c.ids)
	}
}

func TestWhatMayYetSucceedIsTriedAgain(t *testing.T) {
	t.Parallel()
	for status, wants := range map[int]struct{ again, sameID bool }{
		201: {}, 200: {}, 400: {}, 403: {}, 404: {}, 422: {},
		// Nothing was done.
		409: {true, false}, 429: {true, false},
		// Whether something was done is not known.
		499: {true, true}, 500: {true, true}, 503: {true, true},
	} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			g, c := newGround(t), &calls{status: status}
			k, _ := g.keeper(t, idempotency.Config{})
			if got := do(t, k, request("{}"), c).Status; got != status {
				t.Errorf("answered %d", got)
			}
			c.status = 200
			got := do(t, k, request("{}"), c)
			if again := len(c.ids) == 2; again != wants.again || again && got.Status != 200 {
				t.Fatalf("carried out %d times, answered %d", len(c.ids), got.Status)
			}
			if wants.again && (c.ids[0] == c.ids[1]) != wants.sameID {
				t.Errorf("the command was given under %v", c.ids)
			}
			refused(t, k, request("{ }"), http.StatusUnprocessableEntity, idempotency.CodeReused)
		})
	}
}

func TestAPanicFreesTheKey(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	k, _ := g.keeper(t, idempotency.Config{})
	var id string
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_, _, _ = k.Do(t.Context(), request("{}"), func(_ context.Context, command string) idempotency.Answer {
			id = command
			panic("a bug")
		})
	}()
	do(t, k, request("{}"), c)
	if c.ids[0] != id {
		t.Error("tried again under another ID")
	}
}

func TestAnAnswerTooLargeIsNotKept(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	k, _ := g.keeper(t, idempotency.Config{})
	large := idempotency.Answer{Status: 200, Header: http.Header{}, Body: bytes.Repeat([]byte("x"), idempotency.MaxAnswer+1)}
	answer, _, err := k.Do(t.Context(), request("{}"), func(context.Context, string) idempotency.Answer { return large })
	must(t, err)
	if !bytes.Equal(answer.Body, large.Body) {
		t.Error("the first answer is not whole")
	}
	refused(t, k, request("{}"), http.StatusConflict, idempotency.CodeNotKept)
}

func TestAnOwnerHasOnlySoManyKeys(t *testing.T) {
	t.Parallel()
	g, c := newGround(t), &calls{}
	one, _ := g.keeper(t, idempotency.Config{MaxKeys: 5})
	two, _ := g.keeper(t, idempotency.Config{MaxKeys: 5})
	with := func(key string) idempotency.Request {
		r := request("{}")
		r.Key = key
		return r
	}
	for i := range 5 {
		do(t, one, with(fmt.Sprint("key-", i)), c)
	}
	for _, k := range []*idempotency.Keeper{one, two} {
		refused(t, k, with("one-more"), http.StatusTooManyRequests, problem.CodeLimit)
		do(t, k, with("key-3"), c)
	}
	theirs := with("one-more")
	theirs.Owner.ID = "op-2"
	do(t, one, theirs, c)
	if len(c.ids) != 6 {
		t.Errorf("carried out %d times, want 6", len(c.ids))
	}
}

// Bodies hold passwords, and answers secrets that are shown once.
func TestNothingIsKeptInClear(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	k, nc := g.keeper(t, idempotency.Config{})
	_, _, err := k.Do(t.Context(), request(`{"password":"hunter2"}`), func(context.Context, string) idempotency.Answer {
		return idempotency.Answer{Status: 201, Header: http.Header{"Set-Cookie": {"session=cookie-secret"}}, Body: []byte(`{"client_secret":"planted-secret"}`)}
	})
	must(t, err)
	js, err := jetstream.New(nc)
	must(t, err)
	bucket, err := js.KeyValue(t.Context(), subjects.BucketAnswers)
	must(t, err)
	keys, err := bucket.Keys(t.Context())
	must(t, err)
	if len(keys) != 1 {
		t.Fatalf("the bucket has %v", keys)
	}
	entry, err := bucket.Get(t.Context(), keys[0])
	must(t, err)
	r := request(`{"password":"hunter2"}`)
	for _, secret := range []string{"hunter2", "planted-secret", "cookie-secret", "client_secret", r.Key, r.Owner.ID} {
		if bytes.Contains(entry.Value(), []byte(secret)) || bytes.Contains([]byte(keys[0]), []byte(secret)) {
			t.Errorf("%q is kept in clear: %s", secret, entry.Value())
		}
	}
}

// When it cannot be known whether the request was made before, it is not made.
func TestWithoutTheBucketNothingIsCarriedOut(t *testing.T) {
	t.Parallel()
	g := newGround(t)
	k, nc := g.keeper(t, idempotency.Config{})
	nc.Close()
	refused(t, k, request("{}"), http.StatusServiceUnavailable, problem.CodeUnavailable)
}

func TestKeysAreReadStrictly(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		`"8e03978e-40d5-43dd-bc93-6894a57f9324"`: "8e03978e-40d5-43dd-bc93-6894a57f9324",
		"8e03978e-40d5-43dd-bc93-6894a57f9324":   "8e03978e-40d5-43dd-bc93-6894a57f9324",
		"a":                                      "a",
		`"with space"`:                           "with space",
		`"quoted \" and \\"`:                     `quoted " and \`,
		" padded ":                               "padded",
	} {
		if got, err := idempotency.ParseKey([]string{value}); got != want || err != nil {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	for _, bad := range []string{
		"", `""`, `"open`, "with space", "a,b", `"a","b"`, `"a";p=1`, "a;b", "a\x00", "ä", `"ä"`, `a"b`, `"\n"`,
		string(bytes.Repeat([]byte("x"), 256)), string(bytes.Repeat([]byte("x"), 1<<16)),
	} {
		if got, err := idempotency.ParseKey([]string{bad}); err == nil {
			t.Errorf("%.40q is read as %q", bad, got)
		}
	}
	if _, err := idempotency.ParseKey([]string{"a", "a"}); err == nil {
		t.Error("two keys are read as one")
	}
}

func FuzzParseKey(f *testing.F) {
	f.Add(`"8e03978e-40d5-43dd-bc93-6894a57f9324"`)
	f.Add("bare")
	f.Add(`"a\"b";q=1`)
	f.Fuzz(func(t *testing.T, value string) {
		key, err := idempotency.ParseKey([]string{value})
		if err != nil {
			var p *problem.Error
			if !errors.As(err, &p) || p.Status != http.StatusBadRequest || key != "" {
				t.Fatalf("%q: %v", value, err)
			}
			return
		}
		if key == "" || len(key) > 255 {
			t.Fatalf("%q is read as %q", value, key)
		}
		for _, c := range []byte(key) {
			if c < ' ' || c > '~' {
				t.Fatalf("%q is read as %q", value, key)
			}
		}
	})
}
