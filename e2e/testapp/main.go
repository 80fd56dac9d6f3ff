// Testapp is the app that the scenarios deploy: it answers, and on request it is
// slow, crashes, eats memory, never listens or says it is ill.
//
// Its environment: PORT, APP_VERSION, EXIT_AT_START=<code>, NEVER_LISTEN=1,
// LISTEN_DELAY=<ms>, HEALTH=fail (every answer is 500), STOP_DELAY=<ms>.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"
)

func main() {
	os.Exit(run(os.Getenv, os.Stdout))
}

func run(getenv func(string) string, out io.Writer) int {
	version := getenv("APP_VERSION")
	fmt.Fprintln(out, "testapp", version, "begins")
	if code := getenv("EXIT_AT_START"); code != "" {
		fmt.Fprintln(out, "testapp gives up with", code)
		return number(code)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if getenv("NEVER_LISTEN") == "1" {
		fmt.Fprintln(out, "testapp listens nowhere")
		<-ctx.Done()
		return 0
	}
	pause(ctx, getenv("LISTEN_DELAY"))
	server := &http.Server{
		Addr:              "0.0.0.0:" + getenv("PORT"),
		Handler:           handler(ctx, getenv, out),
		ReadHeaderTimeout: 5 * time.Second,
	}
	done := make(chan error, 1)
	go func() { done <- server.ListenAndServe() }()
	fmt.Fprintln(out, "testapp", version, "listens on", server.Addr)
	select {
	case err := <-done:
		fmt.Fprintln(out, "testapp cannot serve:", err)
		return 1
	case <-ctx.Done():
	}
	fmt.Fprintln(out, "testapp", version, "was asked to stop")
	pause(context.Background(), getenv("STOP_DELAY"))
	last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := server.Shutdown(last); err != nil && !errors.Is(err, http.ErrServerClosed) {
		fmt.Fprintln(out, "testapp cut requests short:", err)
		return 1
	}
	return 0
}

// handler answers; streams end with ctx, so that a stop does not wait for them.
func handler(ctx context.Context, getenv func(string) string, out io.Writer) http.Handler {
	var served atomic.Int64
	hostname, err := os.Hostname()
	if err != nil {
		hostname = "unknown"
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, r *http.Request) {
		// Reading the body to its end tells a lost POST from a served one.
		n, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, map[string]any{
			"hello": "slipway", "version": getenv("APP_VERSION"), "hostname": hostname,
			"host": r.Host, "method": r.Method, "read": n, "served": served.Add(1), "pid": os.Getpid(),
		})
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"value": getenv(r.URL.Query().Get("name"))})
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, io.LimitReader(r.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		pause(r.Context(), r.URL.Query().Get("ms"))
		answer(w, map[string]any{"slow": true, "read": n})
	})
	mux.HandleFunc("/crash", func(_ http.ResponseWriter, r *http.Request) {
		code := number(r.URL.Query().Get("code"))
		fmt.Fprintln(out, "testapp crashes with", code)
		os.Exit(code)
	})
	mux.HandleFunc("/oom", func(http.ResponseWriter, *http.Request) {
		fmt.Fprintln(out, "testapp eats memory")
		eat()
	})
	mux.HandleFunc("/echo", echo)
	mux.HandleFunc("/ws", webSocket)
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) { stream(ctx, w, r) })
	if getenv("HEALTH") == "fail" {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "told to fail", http.StatusInternalServerError)
		})
	}
	return mux
}

// echo takes the connection over, as a WebSocket does, and sends back what comes.
func echo(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") == "" {
		http.Error(w, "ask for an upgrade", http.StatusUpgradeRequired)
		return
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	const accepted = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
	if _, err := io.WriteString(conn, accepted); err == nil {
		// It ends when the other side does; why is its own business.
		_, _ = io.Copy(conn, buffered)
	}
}

// webSocket sends back what comes over a WebSocket.
func webSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	// It ends when the other side does; why is its own business.
	defer func() { _ = conn.CloseNow() }()
	for {
		kind, message, err := conn.Read(r.Context())
		if err != nil {
			return
		}
		if err := conn.Write(r.Context(), kind, message); err != nil {
			return
		}
	}
}

// stream sends a numbered event five times a second until ctx ends.
func stream(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for n := 1; ; n++ {
		if _, err := fmt.Fprintf(w, "id: %d\ndata: tick\n\n", n); err != nil {
			return
		}
		if err := http.NewResponseController(w).Flush(); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		case <-r.Context().Done():
			return
		}
	}
}

func answer(w http.ResponseWriter, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	// A failed write means that the client is gone.
	_ = json.NewEncoder(w).Encode(body)
}

// eat touches memory until the kernel ends it.
func eat() {
	var eaten [][]byte
	for {
		chunk := make([]byte, 8<<20)
		for i := 0; i < len(chunk); i += 4096 {
			chunk[i] = 1
		}
		eaten = append(eaten, chunk)
	}
}

func pause(ctx context.Context, milliseconds string) {
	if d := time.Duration(number(milliseconds)) * time.Millisecond; d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
		}
	}
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return n
}
