package runtime

import "errors"

var (
	// ErrNotFound: there is no such container.
	ErrNotFound = errors.New("no such container")
	// ErrNoImage: the image of a container to be made is not there any more.
	ErrNoImage = errors.New("no such image")
	// ErrInUse: the image cannot go because a container needs it.
	ErrInUse = errors.New("image is in use")
)

// PullCause says why a pull failed.
type PullCause string

// The causes.
const (
	// PullNotFound: the registry answered that it has no such image.
	PullNotFound PullCause = "not_found"
	// PullDenied: the registry does not let us have it.
	PullDenied PullCause = "denied"
	// PullInvalid: the reference or the image itself is not usable on this machine.
	PullInvalid PullCause = "invalid"
	// PullUnavailable: the registry could not be reached or failed; try again.
	PullUnavailable PullCause = "unavailable"
)

// PullError is a failed pull.
type PullError struct {
	Ref   string
	Cause PullCause
	Err   error
}

// Error says it in a sentence that can be shown to the app's owner.
func (e *PullError) Error() string {
	switch e.Cause {
	case PullNotFound:
		return "image " + e.Ref + " was not found in its registry"
	case PullDenied:
		return "the registry does not allow " + e.Ref + " to be pulled"
	case PullInvalid:
		return "image " + e.Ref + " cannot be used: " + e.Err.Error()
	default:
		return "image " + e.Ref + " could not be pulled: " + e.Err.Error()
	}
}

// Unwrap returns what the registry or the runtime said.
func (e *PullError) Unwrap() error { return e.Err }

// Final is true when trying again cannot help.
func (e *PullError) Final() bool { return e.Cause != PullUnavailable }

// IsFinal reports whether err is a failed pull that trying again cannot help.
func IsFinal(err error) bool {
	var pull *PullError
	return errors.As(err, &pull) && pull.Final()
}
