// Package registry is the platform's own OCI registry: distribution v3 on a
// directory, without accounts of its own. It is meant for a loopback address or a
// private network, where whoever can reach it may push.
package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/distribution/distribution/v3/configuration"
	"github.com/distribution/distribution/v3/registry/handlers"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem" // the storage used below
	"github.com/sirupsen/logrus"
)

// stopAfter bounds how long pushes and pulls under way may take at the end.
const stopAfter = 3 * time.Second

// Config says where the registry listens and keeps its images.
type Config struct {
	// Listen is host:port; port 0 takes a free one.
	Listen string `koanf:"listen" default:"127.0.0.1:5055" usage:"host:port of the registry"`
	// StoreDir holds all images.
	StoreDir string `koanf:"store-dir" usage:"directory of the images"`
}

// Deps are what the service works with.
type Deps struct {
	Log *slog.Logger
}

// Service is the registry.
type Service struct {
	log      *slog.Logger
	app      *handlers.App
	http     *http.Server
	listener net.Listener
	serving  atomic.Bool
}

// New opens the store and listens. It fails when the address is taken or the
// directory cannot be made.
func New(c Config, d Deps) (*Service, error) {
	if c.StoreDir == "" {
		return nil, errors.New("registry: store-dir is empty; name the directory for the images")
	}
	if err := os.MkdirAll(c.StoreDir, 0o700); err != nil {
		return nil, fmt.Errorf("registry: make the image directory: %w", err)
	}
	app, err := newApp(c.StoreDir)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("registry: %w", err), app.Shutdown())
	}
	s := &Service{log: d.Log.With("part", "registry"), app: app, listener: listener}
	s.http = &http.Server{
		Handler:           s.logFailures(app),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	return s, nil
}

// Addr is host:port as it is really listened on.
func (s *Service) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	served := make(chan error, 1)
	go func() { served <- s.http.Serve(s.listener) }()
	s.serving.Store(true)
	defer s.serving.Store(false)
	select {
	case err := <-served:
		return errors.Join(fmt.Errorf("registry: %w", err), s.app.Shutdown())
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopAfter)
	defer cancel()
	if err := s.http.Shutdown(bounded); err != nil {
		// Whoever still pushes will have to push again.
		_ = s.http.Close()
	}
	if err := s.app.Shutdown(); err != nil {
		return fmt.Errorf("registry: close the store: %w", err)
	}
	return nil
}

// Ready says whether it serves.
func (s *Service) Ready() error {
	if !s.serving.Load() {
		return errors.New("the registry is not serving yet")
	}
	return nil
}

// newApp turns distribution's panics about its configuration into errors.
func newApp(dir string) (app *handlers.App, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("registry: open the store %s: %v", dir, reason)
		}
	}()
	// Distribution writes every missing blob as an error to the process's default
	// logrus logger; what matters is logged by logFailures.
	logrus.SetOutput(io.Discard)
	c := &configuration.Configuration{Storage: configuration.Storage{
		"filesystem": configuration.Parameters{"rootdirectory": dir, "maxthreads": 32},
		"delete":     configuration.Parameters{"enabled": true},
		"redirect":   configuration.Parameters{"disable": true},
	}}
	// An index may name platforms that were not pushed: this node runs one only.
	c.Validation.Disabled = true
	c.Catalog.MaxEntries = 1000
	return handlers.NewApp(context.Background(), c), nil
}

// logFailures logs answers that are the registry's own fault.
func (s *Service) logFailures(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		noted := &statusWriter{ResponseWriter: w}
		next.ServeHTTP(noted, r)
		if noted.status >= http.StatusInternalServerError {
			s.log.ErrorContext(r.Context(), "request failed", "method", r.Method, "path", r.URL.Path, "status", noted.status)
		}
	})
}

type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap gives http.ResponseController the rest of what the writer can do.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
