package podman

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/containers/podman/v5/pkg/bindings/images"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"go.opentelemetry.io/otel/attribute"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// mostPullers bounds how many repositories the registry keeps a puller for.
const mostPullers = 256

// registry asks registries which image a reference means.
type registry struct {
	insecure map[string]bool

	mu sync.Mutex
	// pullers are by repository: each has found out how to speak to its registry,
	// which is half of a question.
	pullers map[string]*remote.Puller
}

func newRegistry(insecure []string) *registry {
	r := &registry{insecure: map[string]bool{}, pullers: map[string]*remote.Puller{}}
	for _, host := range insecure {
		r.insecure[host] = true
	}
	return r
}

// parse understands ref; a registry that was configured so is spoken to in HTTP.
func (r *registry) parse(ref string) (name.Reference, error) {
	parsed, err := name.ParseReference(ref)
	if err != nil {
		return nil, err
	}
	if !r.isInsecure(parsed) {
		return parsed, nil
	}
	return name.ParseReference(ref, name.Insecure)
}

func (r *registry) isInsecure(ref name.Reference) bool {
	return r.insecure[ref.Context().RegistryStr()]
}

// resolve asks for a tag's digest, each time anew: what was pushed before the
// question counts.
func (r *registry) resolve(ctx context.Context, tag name.Reference) (digest string, err error) {
	repository := tag.Context().Name()
	puller, err := r.puller(repository)
	if err != nil {
		return "", err
	}
	head, err := puller.Head(ctx, tag)
	if err != nil {
		// A puller keeps the error that it began with.
		r.dropPuller(repository, puller)
		return "", err
	}
	return head.Digest.String(), nil
}

func (r *registry) puller(repository string) (*remote.Puller, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.pullers[repository]; ok {
		return p, nil
	}
	p, err := remote.NewPuller()
	if err != nil {
		return nil, err
	}
	if len(r.pullers) >= mostPullers {
		clear(r.pullers)
	}
	r.pullers[repository] = p
	return p, nil
}

func (r *registry) dropPuller(repository string, failed *remote.Puller) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.pullers[repository] == failed {
		delete(r.pullers, repository)
	}
}

// Pull implements runtime.Runtime. The digest is the one that the registry answers
// for the reference now; an image that is present under that digest is not fetched.
func (p *Podman) Pull(ctx context.Context, ref string) (_ runtime.Image, err error) {
	ctx, end := p.callWithin(ctx, pullTime, "pull", attribute.String("container.image.name", ref))
	defer end(&err)
	parsed, err := p.registry.parse(ref)
	if err != nil {
		return runtime.Image{}, &runtime.PullError{Ref: ref, Cause: runtime.PullInvalid, Err: err}
	}
	var digest string
	if pinned, ok := parsed.(name.Digest); ok {
		digest = pinned.DigestStr()
	} else {
		if digest, err = p.registry.resolve(ctx, parsed); err != nil {
			return runtime.Image{}, pullError(ref, err)
		}
	}
	exact := parsed.Context().Name() + "@" + digest
	if id, ok := p.present(ctx, exact); ok {
		return runtime.Image{ID: id, Digest: digest, References: []string{exact}, Cached: true}, nil
	}
	skip, quiet := p.registry.isInsecure(parsed), true
	if _, err := images.Pull(ctx, exact, &images.PullOptions{SkipTLSVerify: &skip, Quiet: &quiet}); err != nil {
		return runtime.Image{}, pullError(ref, err)
	}
	id, ok := p.present(ctx, exact)
	if !ok {
		return runtime.Image{}, &runtime.PullError{Ref: ref, Cause: runtime.PullUnavailable,
			Err: errors.New("it was pulled, but is not among the local images")}
	}
	return runtime.Image{ID: id, Digest: digest, References: []string{exact}}, nil
}

// pullError sorts what went wrong by what can be done about it.
func pullError(ref string, err error) error {
	return &runtime.PullError{Ref: ref, Cause: pullCause(err), Err: errors.New(plainCause(err))}
}

func pullCause(err error) runtime.PullCause {
	var answered *transport.Error
	if errors.As(err, &answered) {
		switch answered.StatusCode {
		case http.StatusNotFound:
			return runtime.PullNotFound
		case http.StatusUnauthorized, http.StatusForbidden:
			return runtime.PullDenied
		}
		return runtime.PullUnavailable
	}
	text := err.Error()
	for _, said := range []struct {
		text  string
		cause runtime.PullCause
	}{
		{"manifest unknown", runtime.PullNotFound},
		{"name unknown", runtime.PullNotFound},
		{"unauthorized", runtime.PullDenied},
		{"requested access to the resource is denied", runtime.PullDenied},
		{"no image found in manifest list for architecture", runtime.PullInvalid},
		{"no image found in image index for architecture", runtime.PullInvalid},
		{"unsupported image-specific operation", runtime.PullInvalid},
	} {
		if strings.Contains(text, said.text) {
			return said.cause
		}
	}
	return runtime.PullUnavailable
}

// plainCause drops the request's address, which may hold more than an app's owner
// should read.
func plainCause(err error) string {
	var request *url.Error
	if errors.As(err, &request) {
		return request.Err.Error()
	}
	return err.Error()
}

// Images implements runtime.Runtime.
func (p *Podman) Images(ctx context.Context) (_ []runtime.Image, err error) {
	ctx, end := p.call(ctx, "images")
	defer end(&err)
	found, err := images.List(ctx, nil)
	if err != nil {
		return nil, err
	}
	list := make([]runtime.Image, 0, len(found))
	for _, i := range found {
		list = append(list, runtime.Image{ID: i.ID, Digest: i.Digest, References: append(i.RepoTags, i.RepoDigests...)})
	}
	return list, nil
}

// RemoveImage implements runtime.Runtime.
func (p *Podman) RemoveImage(ctx context.Context, id string) (err error) {
	ctx, end := p.call(ctx, "remove image", attribute.String("container.image.id", id))
	defer end(&err)
	p.images.forget(id)
	_, errs := images.Remove(ctx, []string{id}, nil)
	if err = errors.Join(errs...); err == nil {
		return nil
	}
	switch {
	case status(err) == http.StatusNotFound, strings.Contains(err.Error(), "image not known"):
		return nil
	case status(err) == http.StatusConflict, strings.Contains(err.Error(), "in use by"):
		return fmt.Errorf("%w: %w", runtime.ErrInUse, err)
	}
	return err
}
