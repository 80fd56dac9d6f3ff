package operator_test

import (
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/emptypb"

	identityv1 "github.com/slipway-paas/slipway/gen/slipway/identity/v1"
	"github.com/slipway-paas/slipway/services/identity/operator"
)

var (
	first  = sha256.Sum256([]byte("first token"))
	second = sha256.Sum256([]byte("second token"))
)

func event(hash [sha256.Size]byte) *identityv1.OperatorBootstrapped {
	return &identityv1.OperatorBootstrapped{
		OperatorId: "op", OrgId: "default", AppId: "app", TokenSha256: hash[:], Scopes: []string{"deploy:manage"},
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	make1 := operator.Bootstrap{ID: "op", OrgID: "default", AppID: "app", TokenSHA256: first, Scopes: []string{"deploy:manage"}}
	cases := map[string]struct {
		given []proto.Message
		when  operator.Command
		then  proto.Message
		err   error
	}{
		"an operator is made":             {nil, make1, event(first), nil},
		"and not twice":                   {[]proto.Message{event(first)}, make1, nil, operator.ErrExists},
		"its token can be replaced":       {[]proto.Message{event(first)}, operator.ReplaceToken{TokenSHA256: second}, replaced(second), nil},
		"not that of nobody":              {nil, operator.ReplaceToken{TokenSHA256: second}, nil, operator.ErrUnknown},
		"nor by the hash of nothing":      {[]proto.Message{event(first)}, operator.ReplaceToken{}, nil, operator.ErrMalformed},
		"it is granted what it lacks":     {[]proto.Message{event(first)}, operator.GrantScopes{Scopes: []string{"deploy:manage", "admin"}}, granted("admin"), nil},
		"not what it has":                 {[]proto.Message{event(first), granted("admin")}, operator.GrantScopes{Scopes: []string{"admin"}}, nil, operator.ErrGranted},
		"nobody is granted anything":      {nil, operator.GrantScopes{Scopes: []string{"admin"}}, nil, operator.ErrUnknown},
		"an operator without id is none":  {nil, operator.Bootstrap{OrgID: "default", AppID: "app", TokenSHA256: first}, nil, operator.ErrMalformed},
		"a command that is none is wrong": {nil, nil, nil, operator.ErrMalformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var state operator.State
			for _, e := range c.given {
				state = operator.Evolve(state, e)
			}
			got, err := operator.Decide(state, c.when)
			if !errors.Is(err, c.err) {
				t.Fatalf("got error %v, want %v", err, c.err)
			}
			if diff := cmp.Diff(c.then, got, protocmp.Transform()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheLastTokenHolds(t *testing.T) {
	t.Parallel()
	state := operator.Evolve(operator.Evolve(operator.State{}, event(first)), replaced(second))
	if state.TokenSHA256 != second {
		t.Error("the first token is still the operator's")
	}
	if again := operator.Evolve(state, &emptypb.Empty{}); !cmp.Equal(again, state) {
		t.Error("a foreign event changed the operator")
	}
	if again := operator.Evolve(state, &identityv1.OperatorBootstrapped{OperatorId: "op", TokenSha256: []byte("short")}); !cmp.Equal(again, state) {
		t.Error("an event with half a hash changed the operator")
	}
}

// A new event of the schema needs a fold and a line in this test.
func TestEveryEventOfTheSchemaHasAFold(t *testing.T) {
	t.Parallel()
	samples := map[string]struct {
		before operator.State
		event  proto.Message
	}{
		"OperatorBootstrapped": {operator.State{}, event(first)},
		"AccessTokenReplaced":  {operator.Evolve(operator.State{}, event(first)), replaced(second)},
		"ScopesGranted":        {operator.Evolve(operator.State{}, event(first)), granted("admin")},
	}
	messages := identityv1.File_slipway_identity_v1_events_proto.Messages()
	for i := range messages.Len() {
		name := string(messages.Get(i).Name())
		sample, ok := samples[name]
		if !ok || cmp.Equal(operator.Evolve(sample.before, sample.event), sample.before) {
			t.Errorf("%s has no fold", name)
		}
	}
}

func replaced(hash [sha256.Size]byte) *identityv1.AccessTokenReplaced {
	return &identityv1.AccessTokenReplaced{TokenSha256: hash[:]}
}

func granted(scopes ...string) *identityv1.ScopesGranted {
	return &identityv1.ScopesGranted{Scopes: scopes}
}
