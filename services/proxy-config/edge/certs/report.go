package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/edgetls"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// report is what is told of one certificate.
type report struct {
	renewal           bool
	sentence          string
	notAfter, retryAt time.Time
}

// issuer names where certificates come from, in reports.
func (k *Keeper) issuer() string {
	if k.cfg.TLS.TLS == edgetls.ACME {
		return k.cfg.TLS.ACME.Directory
	}
	return edgetls.Internal
}

// tell says on NATS how it ended. A report that nobody takes is lost: what is held is told
// again when it is loaded, what failed when it fails again.
func (k *Keeper) tell(subject string, err error, r report) {
	if err != nil {
		k.count.failed.Inc()
	}
	message := &edgev1.CertificateReport{EdgeId: k.cfg.EdgeID, Name: subject, Issuer: k.issuer(), Renewal: r.renewal, Error: r.sentence}
	if !r.notAfter.IsZero() {
		message.NotAfter = timestamppb.New(r.notAfter)
	}
	if !r.retryAt.IsZero() {
		message.RetryAt = timestamppb.New(r.retryAt)
	}
	data, err := proto.Marshal(message)
	if err == nil {
		err = k.cfg.NATS.Publish(subjects.EdgeCertificate(k.cfg.EdgeID), data)
	}
	if err != nil {
		k.log.Debug("a certificate's report is lost", "name", subject, "error", err)
	}
}

// event hears from CertMagic what this edge got or renewed, and which renewal failed that
// CertMagic tried by itself.
func (k *Keeper) event(ctx context.Context, name string, data map[string]any) error {
	subject, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	switch name {
	case "cert_obtained":
		notAfter, err := k.notAfter(ctx, data)
		if err != nil {
			k.log.Warn("when a new certificate ends cannot be read", "name", subject, "error", err)
		}
		k.log.Info("a certificate was had", "name", subject, "renewal", renewal, "not_after", notAfter)
		k.count.had(renewal)
		k.forgive(ctx, subject)
		k.renewed(subject, notAfter)
		k.tell(subject, nil, report{renewal: renewal, notAfter: notAfter})
	case "cert_failed":
		err, _ := data["error"].(error)
		if err == nil || !k.maintained(subject) {
			return nil
		}
		why := explain(err)
		k.log.Warn("a certificate could not be renewed", "name", subject, "why", why.sentence)
		k.tell(subject, err, report{renewal: true, sentence: why.sentence, retryAt: why.retryAt})
	}
	return nil
}

// maintained reports whether it is CertMagic that works on the name, and not a worker.
func (k *Keeper) maintained(subject string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.states[subject]
	return st != nil && st.held && !st.running
}

func (k *Keeper) renewed(subject string, notAfter time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if st := k.states[subject]; st != nil && !notAfter.IsZero() {
		st.held, st.expires = true, notAfter
	}
}

func (k *Keeper) notAfter(ctx context.Context, data map[string]any) (time.Time, error) {
	path, _ := data["certificate_path"].(string)
	text, err := k.magic.storage.Load(ctx, path)
	if err != nil {
		return time.Time{}, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return time.Time{}, fmt.Errorf("%s: %w", path, errors.New("there is no PEM"))
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", path, err)
	}
	return leaf.NotAfter, nil
}
