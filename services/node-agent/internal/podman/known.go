package podman

import (
	"context"
	"sync"

	"github.com/containers/podman/v5/pkg/bindings/images"
)

// container is what is known of one of our containers without asking Podman.
type container struct {
	namespace string // the pool's; empty on the bridge
	address   string // empty where only Podman knows it
}

// knownImages remembers which local image a digest is: Podman takes longer to say so
// than to make a container, the more images it has the longer. What is remembered can
// be wrong when somebody else removed the image; Create finds out.
type knownImages struct {
	mu  sync.Mutex
	ids map[string]string // by repository@digest
}

// mostKnownImages bounds the memory; forgetting all costs one question for each.
const mostKnownImages = 4096

func (k *knownImages) get(exact string) (id string, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	id, ok = k.ids[exact]
	return id, ok
}

func (k *knownImages) put(exact, id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.ids == nil || len(k.ids) >= mostKnownImages {
		k.ids = map[string]string{}
	}
	k.ids[exact] = id
}

func (k *knownImages) forget(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for exact, known := range k.ids {
		if known == id {
			delete(k.ids, exact)
		}
	}
}

// present says which local image that is, if it is there.
func (p *Podman) present(ctx context.Context, exact string) (id string, ok bool) {
	if id, ok = p.images.get(exact); ok {
		return id, true
	}
	report, err := images.GetImage(ctx, exact, nil)
	if err != nil || report.ImageData == nil {
		return "", false
	}
	p.images.put(exact, report.ID)
	return report.ID, true
}
