// Package tiltfile reads the repository's Tiltfile with the interpreter that Tilt
// itself uses, and starts what it says, resource by resource, so that the file is held
// true on machines that have no Tilt.
package tiltfile

import (
	"errors"
	"fmt"
	"os"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// Resource is one local_resource of the Tiltfile.
type Resource struct {
	Name string
	// Cmd runs to its end first; Serve then goes on running. Either may be empty.
	Cmd, Serve string
	// Deps are the paths whose change rebuilds it; Needs the resources that must be
	// ready before it starts.
	Deps, Needs []string
	// ReadyPort and ReadyPath are of its HTTP readiness probe; 0 for none.
	ReadyPort int
	ReadyPath string
}

// Read evaluates the Tiltfile at path as if it stood in dir, and returns its resources
// in the order it names them.
func Read(path, dir string) ([]Resource, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the Tiltfile: %w", err)
	}
	var all []Resource
	builtins := starlark.StringDict{
		"os": &starlarkstruct.Module{Name: "os", Members: starlark.StringDict{
			"getcwd": starlark.NewBuiltin("getcwd", func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
				return starlark.String(dir), nil
			}),
		}},
		"http_get_action": starlark.NewBuiltin("http_get_action", httpGetAction),
		"probe":           starlark.NewBuiltin("probe", probe),
		"local_resource": starlark.NewBuiltin("local_resource", func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			r, err := localResource(b, args, kwargs)
			all = append(all, r)
			return starlark.None, err
		}),
	}
	thread := &starlark.Thread{Name: "Tiltfile"}
	_, err = starlark.ExecFileOptions(&syntax.FileOptions{TopLevelControl: true}, thread, path, source, builtins)
	var failed *starlark.EvalError
	if errors.As(err, &failed) {
		return nil, fmt.Errorf("evaluate the Tiltfile: %s", failed.Backtrace())
	}
	if err != nil {
		return nil, fmt.Errorf("evaluate the Tiltfile: %w", err)
	}
	return all, nil
}

type action struct {
	starlark.Value
	port int
	path string
}

func httpGetAction(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	a := action{Value: starlark.None}
	return &a, starlark.UnpackArgs(b.Name(), args, kwargs, "port", &a.port, "path?", &a.path)
}

func probe(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var initial, period, timeout int
	var get starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "initial_delay_secs?", &initial, "timeout_secs?", &timeout,
		"period_secs?", &period, "http_get", &get); err != nil {
		return nil, err
	}
	if _, ok := get.(*action); !ok {
		return nil, fmt.Errorf("probe: http_get is %s, not an http_get_action", get.Type())
	}
	return get, nil
}

func localResource(b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (Resource, error) {
	var r Resource
	var deps, needs, ignore, labels *starlark.List
	var ready starlark.Value
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &r.Name, "cmd?", &r.Cmd, "serve_cmd?", &r.Serve, "deps?", &deps,
		"ignore?", &ignore, "resource_deps?", &needs, "labels?", &labels, "readiness_probe?", &ready); err != nil {
		return r, err
	}
	var err error
	if r.Deps, err = texts(deps); err != nil {
		return r, fmt.Errorf("%s: deps: %w", r.Name, err)
	}
	if r.Needs, err = texts(needs); err != nil {
		return r, fmt.Errorf("%s: resource_deps: %w", r.Name, err)
	}
	if a, ok := ready.(*action); ok {
		r.ReadyPort, r.ReadyPath = a.port, a.path
	}
	return r, nil
}

func texts(list *starlark.List) ([]string, error) {
	if list == nil {
		return nil, nil
	}
	out := make([]string, 0, list.Len())
	for v := range list.Elements() {
		text, ok := starlark.AsString(v)
		if !ok {
			return nil, fmt.Errorf("%s is no text", v)
		}
		out = append(out, text)
	}
	return out, nil
}
