// Package services_test holds the rules that keep the house in shape.
package services_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/slipway-paas/slipway/"

// source is one Go file that is not a test.
type source struct {
	path string // from the repository's root
	file *ast.File
}

func sources(t *testing.T, roots ...string) []source {
	t.Helper()
	var out []source
	for _, root := range roots {
		err := filepath.WalkDir(filepath.Join("..", root), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			out = append(out, source{path: filepath.ToSlash(strings.TrimPrefix(path, "../")), file: f})
			return nil
		})
		if err != nil {
			t.Fatalf("reading %s: %v", root, err)
		}
	}
	if len(out) == 0 {
		t.Fatalf("no source under %v", roots)
	}
	return out
}

// ours are the project's own packages that a file imports, from the root.
func (s source) ours() []string {
	var out []string
	for _, i := range s.file.Imports {
		if rest, ok := strings.CutPrefix(strings.Trim(i.Path.Value, `"`), module); ok {
			out = append(out, rest)
		}
	}
	return out
}

// moduleOf is the module a path belongs to; lower ones come first in layers.
func moduleOf(path string) string {
	for _, m := range []string{"services/proxy-config/edge", "libs", "gen", "services", "e2e"} {
		if path == m || strings.HasPrefix(path, m+"/") {
			return m
		}
	}
	return ""
}

func TestALowerModuleNeverImportsAHigherOne(t *testing.T) {
	t.Parallel()
	allowed := map[string][]string{
		// gen holds words alone and imports nothing of ours.
		"libs":                       {"libs", "gen"},
		"gen":                        {"gen"},
		"services":                   {"libs", "gen", "services"},
		"services/proxy-config/edge": {"libs", "gen", "services/proxy-config/edge"},
		"e2e":                        {"libs", "gen", "services", "services/proxy-config/edge", "e2e"},
	}
	for _, s := range sources(t, "libs", "gen", "services", "e2e") {
		from := moduleOf(s.path)
		for _, to := range s.ours() {
			if !slices.Contains(allowed[from], moduleOf(to)) {
				t.Errorf("%s imports %s: %s may import %v", s.path, to, from, allowed[from])
			}
		}
	}
}

func TestAServiceNeverImportsAnother(t *testing.T) {
	t.Parallel()
	serviceOf := func(path string) string {
		parts := strings.Split(path, "/")
		if len(parts) < 2 || parts[0] != "services" {
			return ""
		}
		return parts[1]
	}
	for _, s := range sources(t, "services") {
		from := serviceOf(s.path)
		if from == "standalone" {
			continue
		}
		for _, to := range s.ours() {
			if other := serviceOf(to); other != "" && other != from {
				t.Errorf("%s imports %s: services meet in proto and events only", s.path, to)
			}
		}
	}
}

// pure are the packages that decide: no clock, no random, no I/O.
var pure = []string{
	"services/scheduler/deployment", "services/scheduler/placement", "services/scheduler/audit",
	"services/proxy-config/routing", "services/identity/operator", "services/gateway/statusview",
	"services/webhooks/webhook", "services/webhooks/delivery", "services/identity/eventcredential", "services/domains/domain", "services/dns/wanted", "services/dns/tunnel",
}

func TestThePureCoreReadsNoClockNoRandomAndNoWorld(t *testing.T) {
	t.Parallel()
	banned := []string{"os", "net", "net/http", "math/rand", "math/rand/v2", "crypto/rand", "os/exec", "syscall",
		"github.com/nats-io/nats.go", "github.com/jackc/pgx/v5", "log/slog"}
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "NewTimer", "NewTicker", "Tick", "AfterFunc"}
	for _, s := range sources(t, "services/scheduler", "services/proxy-config", "services/identity", "services/gateway", "services/webhooks", "services/domains", "services/dns") {
		if !slices.Contains(pure, filepath.ToSlash(filepath.Dir(s.path))) {
			continue
		}
		for _, i := range s.file.Imports {
			if path := strings.Trim(i.Path.Value, `"`); slices.Contains(banned, path) {
				t.Errorf("%s imports %s: it must stay pure", s.path, path)
			}
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "time" && slices.Contains(clock, sel.Sel.Name) {
				t.Errorf("%s calls time.%s: times come in with commands and events", s.path, sel.Sel.Name)
			}
			return true
		})
	}
}

// TestNATSNamesAreBuiltInOnePlace finds subjects spelled out by hand.
func TestNATSNamesAreBuiltInOnePlace(t *testing.T) {
	t.Parallel()
	for _, s := range sources(t, "libs", "services") {
		if strings.HasPrefix(s.path, "libs/subjects/") || strings.HasPrefix(s.path, "libs/eventstore/storetest/") {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			lit, ok := n.(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			text := strings.Trim(lit.Value, "`\"")
			for _, prefix := range []string{"evt.", "probe.", "edge.applied", "svc.env", "VIEW_"} {
				if strings.HasPrefix(text, prefix) {
					t.Errorf("%s spells out %s: build it in libs/subjects", s.path, lit.Value)
				}
			}
			return true
		})
	}
}
