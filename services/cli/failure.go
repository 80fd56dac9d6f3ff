package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/slipway-paas/slipway/services/cli/api"
)

// Exit codes; scripts may rely on them.
const (
	ExitOK           = 0
	ExitFailed       = 1
	ExitUsage        = 2
	ExitUnauthorized = 3
	ExitNotFound     = 4
	ExitDeployFailed = 5
)

// failure is an error with the exit code it leads to. Its text is for people: what
// happened, why, and what to do.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fail(code int, format string, args ...any) error {
	return &failure{code: code, err: fmt.Errorf(format, args...)}
}

func usage(format string, args ...any) error {
	return fail(ExitUsage, format, args...)
}

// exitCode is the code that err ends the program with.
func exitCode(err error) int {
	var own *failure
	var problem *api.Problem
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &problem):
		switch problem.Status {
		case http.StatusUnauthorized, http.StatusForbidden:
			return ExitUnauthorized
		case http.StatusNotFound:
			return ExitNotFound
		}
	}
	return ExitFailed
}

// reasonCode is the API's own code of what it refused, and one of ours for what never
// came to the API; scripts may rely on them.
func reasonCode(err error) string {
	var problem *api.Problem
	var unreachable *api.Unreachable
	switch {
	case errors.As(err, &problem) && problem.Code != "":
		return problem.Code
	case errors.As(err, &unreachable):
		return "unreachable"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	}
	switch exitCode(err) {
	case ExitUsage:
		return "wrong_usage"
	case ExitUnauthorized:
		return "unauthorized"
	case ExitNotFound:
		return "not_found"
	case ExitDeployFailed:
		return "deploy_failed"
	default:
		return "failed"
	}
}

// explain writes what went wrong for people, or with --json for programs.
func explain(w io.Writer, err error, asJSON bool) {
	var problem *api.Problem
	isProblem := errors.As(err, &problem)
	message := sentence(err)
	if asJSON {
		out := map[string]any{"error": message, "exit_code": exitCode(err), "code": reasonCode(err)}
		if isProblem && len(problem.Fields) > 0 {
			out["fields"] = problem.Fields
		}
		// Nobody is left to tell when standard error is closed.
		_ = json.NewEncoder(w).Encode(out)
		return
	}
	if isProblem && len(problem.Fields) > 0 {
		fmt.Fprintln(w, "Error: the request was refused; correct this and try again:")
		for _, f := range problem.Fields {
			fmt.Fprintf(w, "  %s: %s\n", plain(f.Field), plain(f.Message))
		}
		return
	}
	fmt.Fprintln(w, "Error:", plain(message))
}

func sentence(err error) string {
	var unreachable *api.Unreachable
	var problem *api.Problem
	switch {
	case errors.As(err, &unreachable):
		return fmt.Sprintf("Slipway does not answer at %s (%v). Is it running? Start it with make run, or set SLIPWAY_API_URL to where it is.", unreachable.URL, unreachable.Cause)
	case errors.Is(err, context.Canceled):
		return "Interrupted."
	case errors.As(err, &problem) && problem.Status == http.StatusUnauthorized:
		return problem.Message + " Check SLIPWAY_TOKEN, or the credentials file."
	}
	return err.Error()
}

// plainLines is plain for text of several lines.
func plainLines(s string) string {
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = plain(line)
	}
	return strings.Join(lines, "\n")
}

// plain keeps what apps and people wrote from steering the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return '\uFFFD'
		}
		return r
	}, s)
}
