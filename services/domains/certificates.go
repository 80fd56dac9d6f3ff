package domains

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
	"github.com/slipway-paas/slipway/services/domains/domain"
)

const (
	// mostReports bounds what edges have said and was not written down yet. What is lost
	// they say again with the next renewal.
	mostReports = 1024
	// maxReason bounds what of a CA's words is kept, in bytes.
	maxReason     = 512
	reportTimeout = 10 * time.Second
)

// reports are what edges say of certificates.
type reports struct {
	service *Service
	sub     *nats.Subscription
	heard   chan *edgev1.CertificateReport
}

func (s *Service) hearCertificates() (*reports, error) {
	r := &reports{service: s, heard: make(chan *edgev1.CertificateReport, mostReports)}
	if s.deps.NATS == nil {
		return r, nil
	}
	// Of several processes one writes it down.
	sub, err := s.deps.NATS.QueueSubscribe(subjects.AllEdgeCertificates, source, func(m *nats.Msg) {
		report := &edgev1.CertificateReport{}
		if err := proto.Unmarshal(m.Data, report); err != nil || m.Subject != subjects.EdgeCertificate(report.GetEdgeId()) {
			s.deps.Log.Warn("left out a report of a certificate that is none", "subject", m.Subject, "error", err)
			return
		}
		select {
		case r.heard <- report:
		default:
			s.deps.Log.Warn("left out a report of a certificate: too many at once", "name", report.GetName())
		}
	})
	if err != nil {
		return nil, fmt.Errorf("hear of certificates: %w", err)
	}
	r.sub = sub
	return r, nil
}

func (r *reports) stop() {
	if r.sub != nil {
		// The connection is closed when this fails: there is nothing left to hear.
		_ = r.sub.Unsubscribe()
	}
}

func (r *reports) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case report := <-r.heard:
			if err := r.service.Certificate(ctx, report); err != nil && ctx.Err() == nil {
				r.service.figures.failures.Inc()
				r.service.deps.Log.WarnContext(ctx, "could not write down a report of a certificate", "name", report.GetName(), "error", err)
			}
		}
	}
}

// Certificate writes down what an edge says of a certificate, when that is for a
// verified domain and new.
func (s *Service) Certificate(ctx context.Context, report *edgev1.CertificateReport) error {
	ctx, cancel := context.WithTimeout(ctx, reportTimeout)
	defer cancel()
	for _, of := range s.known.Named(report.GetName()) {
		if !of.Served() {
			continue
		}
		var c domain.Command = domain.Certified{Issuer: report.GetIssuer(), Edge: report.GetEdgeId(), NotAfter: timeOf(report.GetNotAfter())}
		if report.GetError() != "" {
			c = domain.Uncertified{Reason: cut(report.GetError()), Edge: report.GetEdgeId(), RetryAt: timeOf(report.GetRetryAt())}
		}
		_, err := s.handle(ctx, subjects.Of(of.Org, subjects.Domain, of.ID), c, asked{})
		if err != nil && !errors.Is(err, domain.ErrUnknown) && !errors.Is(err, domain.ErrUnverified) {
			return fmt.Errorf("the certificate of %s: %w", of.Name, err)
		}
	}
	return nil
}

func timeOf(t *timestamppb.Timestamp) time.Time {
	if !t.IsValid() {
		return time.Time{}
	}
	return t.AsTime()
}

// cut keeps what of a text may be kept and shown.
func cut(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "…"
	}
	return text
}
