package cloudevents

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/slipway-paas/slipway/libs/problem"
	"github.com/slipway-paas/slipway/libs/subjects"
)

// maxWanted bounds the types and the aggregates that one stream may name, each.
const maxWanted = 8

// Selection is which events of one organization to follow; nothing else that it says
// can reach another's.
type Selection struct {
	// Org is whose events.
	Org string
	// Types are those to follow; none for all.
	Types []string
	// Aggregates are kinds, or aggregates of a kind; none for all.
	Aggregates []Aggregate
}

// Aggregate is all of a kind, or when ID is set, one.
type Aggregate struct{ Kind, ID string }

// String is kind or kind/id, as Select reads it.
func (a Aggregate) String() string {
	if a.ID == "" {
		return a.Kind
	}
	return a.Kind + "/" + a.ID
}

// OneDeployment selects all events of a deployment.
func OneDeployment(a subjects.Aggregate) Selection {
	return Selection{Org: a.Org, Aggregates: []Aggregate{{Kind: a.Kind, ID: a.ID}}}
}

// Select reads what a client wants of its organization's events: types by name, and
// aggregates as kind or kind/id. Errors are *problem.Error: 422 with all fields at fault.
func Select(org string, types, aggregates []string) (Selection, error) {
	out := Selection{Org: org}
	var faults []problem.Field
	fault := func(field, message string) { faults = append(faults, problem.Field{Field: field, Message: message}) }
	if len(types) > maxWanted {
		fault("type", fmt.Sprintf("may be given %d times; leave it out for all", maxWanted))
		types = nil
	}
	if len(aggregates) > maxWanted {
		fault("aggregate", fmt.Sprintf("may be given %d times; leave it out for all", maxWanted))
		aggregates = nil
	}
	for _, name := range types {
		if !knownType(name) {
			fault("type", fmt.Sprintf("%q is no type of event; one is DeploymentRunning", shortened(name)))
			continue
		}
		out.Types = append(out.Types, name)
	}
	for _, text := range aggregates {
		kind, id, one := strings.Cut(text, "/")
		switch {
		case !slices.Contains(subjects.TenantKinds(), kind):
			fault("aggregate", fmt.Sprintf("%q is not among %s, alone or with /<id>", shortened(text), strings.Join(subjects.TenantKinds(), ", ")))
		case one && !subjects.ValidToken(id):
			fault("aggregate", fmt.Sprintf("%q has no usable id after the slash", shortened(text)))
		default:
			out.Aggregates = append(out.Aggregates, Aggregate{Kind: kind, ID: id})
		}
	}
	if len(faults) > 0 {
		return Selection{}, problem.Validation(faults)
	}
	return out, nil
}

// shortened keeps answers short, whatever was asked.
func shortened(text string) string {
	const most = 64
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// knownType reports whether some event has this name.
func knownType(name string) bool {
	known := false
	if !subjects.ValidToken(name) {
		return false
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		known = strings.HasPrefix(f.Path(), "slipway/") && strings.HasSuffix(f.Path(), "events.proto") && f.Messages().ByName(protoreflect.Name(name)) != nil
		return !known
	})
	return known
}

// Matches reports whether the selection has an event of that aggregate and type.
func (s Selection) Matches(a subjects.Aggregate, eventType string) bool {
	if s.Org != a.Org || len(s.Types) > 0 && !slices.Contains(s.Types, eventType) {
		return false
	}
	return len(s.Aggregates) == 0 || slices.ContainsFunc(s.Aggregates, func(w Aggregate) bool {
		return w.Kind == a.Kind && (w.ID == "" || w.ID == a.ID)
	})
}

// Filters are the subjects to follow; no two of them match the same event, which
// JetStream refuses. Errors: subjects.ErrInvalid.
func (s Selection) Filters() ([]string, error) {
	kinds := slices.Clone(s.Aggregates)
	slices.SortFunc(kinds, func(a, b Aggregate) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID)) })
	whole := map[string]bool{}
	kinds = slices.DeleteFunc(slices.Compact(kinds), func(a Aggregate) bool {
		// All of a kind come first, and include each.
		whole[a.Kind] = whole[a.Kind] || a.ID == ""
		return a.ID != "" && whole[a.Kind]
	})
	if len(kinds) == 0 {
		kinds = []Aggregate{{}}
	}
	types := slices.Clone(s.Types)
	slices.Sort(types)
	if types = slices.Compact(types); len(types) == 0 {
		types = []string{""}
	}
	var out []string
	for _, a := range kinds {
		for _, eventType := range types {
			filter, err := subjects.Within(s.Org, a.Kind, a.ID, eventType)
			if err != nil {
				return nil, fmt.Errorf("select events: %w", err)
			}
			out = append(out, filter)
		}
	}
	return out, nil
}
