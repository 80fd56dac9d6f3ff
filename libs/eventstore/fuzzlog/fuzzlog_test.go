package fuzzlog_test

import (
	"testing"

	"google.golang.org/protobuf/proto"

	claimv1 "github.com/slipway-paas/slipway/gen/slipway/claim/v1"
	"github.com/slipway-paas/slipway/libs/eventstore/fuzzlog"
	"github.com/slipway-paas/slipway/libs/subjects"
)

func TestALogComesBackAsItWasWritten(t *testing.T) {
	t.Parallel()
	whose := subjects.Of("acme", subjects.Claim, "c1")
	schema, err := fuzzlog.Of(claimv1.File_slipway_claim_v1_events_proto, whose)
	if err != nil {
		t.Fatal(err)
	}
	told := []proto.Message{&claimv1.ClaimTaken{Holder: "a"}, &claimv1.ClaimReleased{Holder: "a"}, &claimv1.ClaimTaken{}}
	data, err := schema.Bytes(told...)
	if err != nil {
		t.Fatal(err)
	}
	log := schema.Log(data)
	if len(log) != len(told) {
		t.Fatalf("%d events came back, want %d", len(log), len(told))
	}
	for n, rec := range log {
		if !proto.Equal(rec.Payload, told[n]) || rec.Sequence != uint64(n+1) || rec.Aggregate != whose {
			t.Errorf("event %d came back as %v", n+1, rec)
		}
	}
	if got := schema.Log(data[:len(data)-4]); len(got) != len(told)-1 {
		t.Errorf("a log cut short has %d events", len(got))
	}
}
