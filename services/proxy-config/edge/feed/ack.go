package feed

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// Closing makes every further acknowledgement say that this edge is leaving, and
// says it at once.
func (f *Feed) Closing() {
	f.closing.Store(true)
	f.publish()
	_ = f.nc.FlushTimeout(time.Second)
}

// acknowledge says which revision is served after each change and every second.
// Changes that come faster than they can be said are said together.
func (f *Feed) acknowledge(ctx context.Context) {
	tick := time.NewTicker(ackEvery)
	defer tick.Stop()
	for {
		f.publish()
		select {
		case <-ctx.Done():
			return
		case <-f.applied:
		case <-tick.C:
		}
	}
}

// publish says revision 0 until the table is known to be the view's: this edge
// lives, and nothing may be taken for applied.
func (f *Feed) publish() {
	var revision uint64
	if f.current.Load() {
		revision = f.table.Revision()
	}
	msg, err := proto.Marshal(&routingv1.EdgeApplied{
		EdgeId: f.cfg.EdgeID, Revision: revision, Closing: f.closing.Load(),
	})
	if err != nil {
		f.log.Error("cannot encode an acknowledgement", "error", err)
		return
	}
	err = f.nc.Publish(subjects.EdgeApplied(f.cfg.EdgeID), msg)
	if err != nil && !errors.Is(err, nats.ErrReconnectBufExceeded) && !errors.Is(err, nats.ErrConnectionClosed) {
		f.log.Warn("cannot acknowledge the route table", "error", err)
	}
}

// keepCopy replaces the copy on disk a moment after the table changed, and once
// more at the end.
func (f *Feed) keepCopy(ctx context.Context) {
	if f.cfg.Disk.Path == "" {
		return
	}
	saved := f.table.Version()
	save := func() {
		version := f.table.Version()
		if version == saved {
			return
		}
		if err := f.cfg.Disk.Save(f.table); err != nil {
			f.log.Error("the route table is not on disk", "error", err)
			return
		}
		saved = version
	}
	tick := time.NewTicker(saveAfter)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			save()
			return
		case <-tick.C:
			save()
		}
	}
}

// Report tells health of an instance that fails. Nothing waits for it: said while
// the control plane is away, it is lost.
func (f *Feed) Report(report *edgev1.UpstreamReport) {
	report.EdgeId = f.cfg.EdgeID
	msg, err := proto.Marshal(report)
	if err != nil {
		f.log.Error("cannot encode a report of an instance", "error", err)
		return
	}
	if err := f.nc.Publish(subjects.EdgeUpstream(f.cfg.EdgeID), msg); err != nil {
		f.log.Debug("nobody is told of an instance that fails", "instance", report.GetInstanceId(), "error", err)
	}
}

// Away is how long the control plane has not been there; 0 while it is.
func (f *Feed) Away() time.Duration {
	if f.nc.IsConnected() {
		return 0
	}
	return time.Since(time.Unix(0, f.lost.Load()))
}
