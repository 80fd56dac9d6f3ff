package gwt_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/slipway-paas/slipway/libs/decider"
	"github.com/slipway-paas/slipway/libs/decider/gwt"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/problem"
)

// teller keeps what a story says of failures instead of failing.
type teller struct {
	testing.TB
	told []string
}

func (t *teller) Helper()                       {}
func (t *teller) Errorf(f string, args ...any)  { t.told = append(t.told, fmt.Sprintf(f, args...)) }
func (t *teller) Fatalf(f string, args ...any)  { t.Errorf(f, args...); panic("fatal") }
func (t *teller) wants(to *testing.T, s string) { to.Helper(); wants(to, t, s) }

func wants(to *testing.T, t *teller, s string) {
	to.Helper()
	if all := strings.Join(t.told, "\n"); !strings.Contains(all, s) {
		to.Errorf("the story said %q, wanted %q in it", all, s)
	}
}

type names map[string]bool

var errUnknown = errors.New("unknown command")

// list remembers names; alters makes it break the rules.
func list(altersInDecide, altersInEvolve bool) decider.Decider[names, string] {
	return decider.Decider[names, string]{
		Initial: func() names { return names{} },
		Decide: func(s names, command string, _ time.Time) (proto.Message, error) {
			if altersInDecide {
				s["altered"] = true
			}
			switch {
			case command == "?":
				return nil, errUnknown
			case command == "":
				return nil, problem.Malformed("A name is missing.")
			case s[command]:
				return nil, nil
			}
			return wrapperspb.String(command), nil
		},
		Evolve: func(s names, e eventstore.Recorded) names {
			next := s
			if !altersInEvolve {
				next = names{}
				for n := range s {
					next[n] = true
				}
			}
			next[e.Payload.(*wrapperspb.StringValue).Value] = true
			return next
		},
	}
}

func TestAStoryThatHoldsSaysNothing(t *testing.T) {
	t.Parallel()
	gwt.New(t, list(false, false)).
		Given(wrapperspb.String("a")).
		When("a").ThenNothing().
		When("b").Then(wrapperspb.String("b")).
		When("b").ThenNothing().
		When("").ThenError(problem.CodeMalformed).
		When("?").ThenErrorIs(errUnknown)
}

func TestAStoryThatDoesNotHoldSaysWhy(t *testing.T) {
	t.Parallel()
	told := &teller{}
	story := gwt.New(told, list(false, false)).Given(wrapperspb.String("a"))
	story.When("b").Then(wrapperspb.String("c"))
	story.When("").ThenNothing()
	story.When("?").ThenError(problem.CodeConflict)
	story.When("a").ThenErrorIs(errUnknown)
	told.wants(t, `- wanted + got`)
	told.wants(t, `string: wanted nothing, got the problem malformed_request: A name is missing.`)
	told.wants(t, `string: wanted the problem conflict, got the error "unknown command"`)
	told.wants(t, `string: wanted the error "unknown command", got nothing`)
}

func TestFunctionsThatAlterWhatTheyAreGivenAreFound(t *testing.T) {
	t.Parallel()
	deciding, evolving := &teller{}, &teller{}
	gwt.New(deciding, list(true, false)).When("a")
	deciding.wants(t, "Decide altered")
	gwt.New(evolving, list(false, true)).Given(wrapperspb.String("a"), wrapperspb.String("b")).State()
	evolving.wants(t, "Evolve altered")
}
