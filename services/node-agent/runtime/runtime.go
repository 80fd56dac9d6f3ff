// Package runtime is the node-agent's port to whatever runs containers: a small
// interface, the values that cross it and the errors that mean something.
// Podman implements it in internal/podman, runtime/fake in memory; both pass the
// contract suite in runtime/runtimetest.
package runtime

import (
	"context"
	"time"
)

// Runtime runs containers for one owner. An implementation is made for one owner
// and neither shows nor touches a container of any other.
//
// Every method may be called from many goroutines. Errors that are not one of the
// package's own mean "could not be done now": trying again may help.
type Runtime interface {
	// Info describes the machine. It may look at every container there is.
	Info(ctx context.Context) (Info, error)

	// Ping says whether the runtime answers, at little cost.
	Ping(ctx context.Context) error

	// List returns the owner's containers in any state, in no particular order.
	List(ctx context.Context) ([]Container, error)

	// Inspect returns one container, with its exit code and times.
	// It fails with ErrNotFound when there is none.
	Inspect(ctx context.Context, id string) (Container, error)

	// Pull makes the image available and says which one it is. A reference with a
	// digest that is present locally needs no registry. A tag is always resolved at
	// the registry, and fails when that cannot be reached even if an older image of
	// that tag is present: what was pushed last is what runs.
	// It fails with a *PullError.
	Pull(ctx context.Context, ref string) (Image, error)

	// Create makes a container that does not run yet and returns its id. When a
	// container of the same name is left over from the same owner it is replaced.
	// It fails with ErrNoImage when the image went since it was pulled.
	Create(ctx context.Context, spec Spec) (id string, err error)

	// Start runs a created container.
	Start(ctx context.Context, id string) (Started, error)

	// Stop sends SIGTERM, waits for grace and then sends SIGKILL; it returns when the
	// container does not run. Stopping what does not run or is gone is no error.
	Stop(ctx context.Context, id string, grace time.Duration) error

	// Remove removes the container with what belongs to it (volumes, network
	// namespace), killing it first if it runs. Removing what is gone is no error.
	Remove(ctx context.Context, id string) error

	// Tail returns the end of what the container wrote, at most maxBytes of it.
	Tail(ctx context.Context, id string, maxBytes int) (Output, error)

	// Events reports what happens to the owner's containers from now on. The channel
	// is closed when ctx ends or the stream breaks; the caller then asks anew and
	// lists, because events between are lost.
	Events(ctx context.Context) (<-chan Event, error)

	// Images returns the images that are present, whoever pulled them.
	Images(ctx context.Context) ([]Image, error)

	// RemoveImage removes an image by id. It fails with ErrInUse when a container
	// needs it; removing what is gone is no error.
	RemoveImage(ctx context.Context, id string) error
}

// Info describes the machine under the runtime.
type Info struct {
	Name          string // of the runtime, e.g. "podman 4.3.1, runc"
	Host          string
	MemoryBytes   int64
	CPUMillicores int64
}

// Labels that the agent's containers carry.
const (
	// LabelOwner is the platform and node that made the container; implementations set it.
	LabelOwner      = "slipway.owner"
	LabelOrg        = "slipway.org"
	LabelDeployment = "slipway.deployment"
	LabelRelease    = "slipway.release"
	LabelInstance   = "slipway.instance"
	// LabelAttempt is which start of the instance this container is, from 1.
	LabelAttempt = "slipway.attempt"
	// LabelFailures is how many starts in a row ended early before this one.
	LabelFailures = "slipway.failures"
)

// Spec is a container to be made. Everything it does not say is the hardened
// default of the implementation.
type Spec struct {
	Name string
	// Image is the id that Pull returned.
	Image  string
	Labels map[string]string
	// Env holds what the app asked for; PORT is set from Port unless Env has it.
	Env map[string]string
	// MemoryBytes limits memory, and memory with swap to the same. 0 means no limit.
	MemoryBytes int64
	// CPUMillicores limits CPU time: 1000 is one core. 0 means no limit.
	CPUMillicores int64
	// PidsLimit bounds processes and threads; 0 means 512.
	PidsLimit int64
	// Port is where the app listens, and the port of Started.Address.
	Port int
	// LogMaxBytes bounds the stored output; 0 means 10 MiB.
	LogMaxBytes int64
}

// Started says where a container that was just started can be reached.
type Started struct {
	// Address is host:port, reachable from this machine.
	Address string
	// StartedAt may be a little later than what Inspect says.
	StartedAt time.Time
}

// Output is the end of what a container wrote.
type Output struct {
	// Text is as it was written, control characters and all. Its lines are those of
	// both streams in the order they ended; one without a line end has one here too,
	// so that what the other stream wrote next is not part of it.
	Text string
	// Cut is true when there was more before, so that Text may begin inside of a line.
	Cut bool
}

// End is text's last part, of at most maxBytes.
func End(text string, maxBytes int) Output {
	if len(text) <= maxBytes {
		return Output{Text: text}
	}
	return Output{Text: text[len(text)-maxBytes:], Cut: true}
}

// State is what a container is doing.
type State string

// The states. Whatever an implementation knows beyond them maps to one of these.
const (
	StateCreated State = "created"
	StateRunning State = "running"
	StateExited  State = "exited"
)

// Container is what a runtime knows of one container. List fills the fields up to
// Labels; Inspect fills all.
type Container struct {
	ID      string
	Name    string
	ImageID string
	State   State
	Labels  map[string]string

	// Address as Started had it, while the container runs.
	Address    string
	StartedAt  time.Time
	FinishedAt time.Time
	ExitCode   int
	// OOMKilled is true when the container ended because it met its memory limit.
	OOMKilled bool
}

// Image is an image that is present.
type Image struct {
	ID string
	// Digest is the manifest's as the registry gave it: sha256:…. Empty from Images
	// when the image has none.
	Digest string
	// References are names by which it is known locally.
	References []string
	// Cached is set by Pull when no layer had to be fetched.
	Cached bool
}

// EventType is what happened to a container.
type EventType string

// The event types.
const (
	EventStarted EventType = "started"
	EventDied    EventType = "died"
	EventRemoved EventType = "removed"
)

// Event is something that happened to one of the owner's containers.
type Event struct {
	Type        EventType
	ContainerID string
	Labels      map[string]string
	At          time.Time
}
