package health

import (
	"context"

	"google.golang.org/protobuf/proto"

	edgev1 "github.com/slipway-paas/slipway/gen/slipway/edge/v1"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// hint probes an instance at once that fails an edge's requests. What the edge saw is
// not recorded: an edge may be cut off from an instance that others reach.
func (s *Service) hint(ctx context.Context, data []byte) {
	report := &edgev1.UpstreamReport{}
	if err := proto.Unmarshal(data, report); err != nil {
		s.log.WarnContext(ctx, "an edge's report of an instance cannot be read", "error", err)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	known, ok := s.watching[subjects.InstanceKey(report.GetOrgId(), report.GetDeploymentId(), report.GetInstanceId())]
	if !ok {
		return
	}
	s.figures.hints.Inc()
	select {
	case known.doubts <- struct{}{}:
	default:
	}
}
