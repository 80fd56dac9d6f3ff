package drops

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

const (
	// slow is how long the long requests take.
	slow = 2 * time.Second
	// visitLimit bounds any one request.
	visitLimit = 20 * time.Second
	// between is how long a visitor thinks before its next short request.
	between = 40 * time.Millisecond
	// silence is how long a stream may say nothing.
	silence = 5 * time.Second
)

// kind is a way to visit an app.
type kind struct {
	name, method, path string
	keepAlive          bool
	// phases is how many visitors there are, spread over period.
	phases int
	period time.Duration
}

func kinds() []kind {
	longPath := fmt.Sprintf("/slow?ms=%d", slow.Milliseconds())
	return []kind{
		{"short GET, keep-alive", http.MethodGet, "/", true, 2, 2 * between},
		{"short GET", http.MethodGet, "/", false, 2, 2 * between},
		{"short POST, keep-alive", http.MethodPost, "/", true, 2, 2 * between},
		{"short POST", http.MethodPost, "/", false, 2, 2 * between},
		{"2 s GET, keep-alive", http.MethodGet, longPath, true, 4, slow},
		{"2 s GET", http.MethodGet, longPath, false, 4, slow},
		{"2 s POST, keep-alive", http.MethodPost, longPath, true, 4, slow},
		{"2 s POST", http.MethodPost, longPath, false, 4, slow},
	}
}

// visitor asks one host, one request after the other.
type visitor struct {
	edge, host string
	kind       kind
	http       *http.Client
}

func newVisitor(edge, host string, k kind) *visitor {
	return &visitor{edge: edge, host: host, kind: k, http: &http.Client{
		// One connection each, so that a request goes over the one that is kept.
		Transport: &http.Transport{DisableKeepAlives: !k.keepAlive, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute},
		Timeout:   visitLimit,
	}}
}

// visit goes on until leave ends; what was begun is finished.
func (v *visitor) visit(ctx context.Context, leave <-chan struct{}, offset time.Duration, tell func(error)) {
	defer v.http.CloseIdleConnections()
	if !wait(leave, offset) {
		return
	}
	for {
		tell(v.once(ctx))
		pause := between
		if v.kind.period >= slow {
			pause = time.Millisecond
		}
		if !wait(leave, pause) {
			return
		}
	}
}

func (v *visitor) once(ctx context.Context) error {
	const body = "a body that must arrive whole"
	var content io.Reader
	if v.kind.method == http.MethodPost {
		// A reader without GetBody: the client itself can never send it a second time.
		content = io.MultiReader(strings.NewReader(body))
	}
	r, err := http.NewRequestWithContext(ctx, v.kind.method, v.edge+v.kind.path, content)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	r.Host = v.host
	if content != nil {
		r.ContentLength = int64(len(body))
	}
	began := time.Now()
	response, err := v.http.Do(r)
	if err != nil {
		return fmt.Errorf("after %s: %w", time.Since(began).Round(time.Millisecond), err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	switch {
	case err != nil:
		return fmt.Errorf("reading the answer after %s: %w", time.Since(began).Round(time.Millisecond), err)
	case response.StatusCode != http.StatusOK:
		return fmt.Errorf("answered %d after %s: %.200s", response.StatusCode, time.Since(began).Round(time.Millisecond), text)
	case content != nil && !strings.Contains(string(text), fmt.Sprintf(`"read":%d`, len(body))):
		return fmt.Errorf("the app did not read the whole body: %.200s", text)
	}
	return nil
}

// wait returns false when leave ends first.
func wait(leave <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-leave:
		return false
	case <-timer.C:
		return true
	}
}

// errLeft is why a stream ended that its visitor ended.
var errLeft = errors.New("left")

// talk keeps a WebSocket open until leave ends and has each message sent back; it
// returns why it ended otherwise.
func talk(ctx context.Context, leave <-chan struct{}, edge, host string, heard func()) error {
	dialing, cancel := context.WithTimeout(ctx, visitLimit)
	defer cancel()
	conn, response, err := websocket.Dial(dialing, edge+"/ws", &websocket.DialOptions{Host: host})
	if response != nil && response.Body != nil {
		defer response.Body.Close()
	}
	if err != nil {
		return fmt.Errorf("open a WebSocket: %w", err)
	}
	defer func() { _ = conn.CloseNow() }()
	for n := 0; ; n++ {
		message := fmt.Sprint("message ", n)
		exchange, cancel := context.WithTimeout(ctx, silence)
		err := conn.Write(exchange, websocket.MessageText, []byte(message))
		var echo []byte
		if err == nil {
			_, echo, err = conn.Read(exchange)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("message %d: %w", n, err)
		}
		if string(echo) != message {
			return fmt.Errorf("message %d came back as %q", n, echo)
		}
		heard()
		if !wait(leave, 100*time.Millisecond) {
			_ = conn.Close(websocket.StatusNormalClosure, "")
			return errLeft
		}
	}
}

// listen keeps a stream of server-sent events open until leave ends; none may be missing.
func listen(ctx context.Context, leave <-chan struct{}, edge, host string, heard func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, edge+"/stream", nil)
	if err != nil {
		return fmt.Errorf("make a request: %w", err)
	}
	r.Host = host
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("open a stream: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("a stream was answered %d", response.StatusCode)
	}
	quiet := time.AfterFunc(silence, cancel)
	defer quiet.Stop()
	lines := bufio.NewScanner(response.Body)
	for n := 1; lines.Scan(); {
		select {
		case <-leave:
			return errLeft
		default:
		}
		id, isID := strings.CutPrefix(lines.Text(), "id: ")
		if !isID {
			continue
		}
		quiet.Reset(silence)
		if id != fmt.Sprint(n) {
			return fmt.Errorf("event %s came after %d", id, n-1)
		}
		n++
		heard()
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("a stream was cut: %w", err)
	}
	return errors.New("a stream ended")
}
