package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	nodev1 "github.com/slipway-paas/slipway/gen/slipway/node/v1"
	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// imageKeeper knows which images this agent pulled, across restarts: only those may
// it ever remove.
type imageKeeper struct {
	path  string
	after time.Duration

	mu     sync.Mutex
	pulls  map[string]bool      // ids
	unused map[string]time.Time // since when
}

func openImageKeeper(dir string, after time.Duration) (*imageKeeper, error) {
	k := &imageKeeper{
		path: filepath.Join(dir, "images.json"), after: after,
		pulls: map[string]bool{}, unused: map[string]time.Time{},
	}
	ids, err := readList(k.path)
	if err != nil {
		return nil, fmt.Errorf("read which images were pulled: %w", err)
	}
	for _, id := range ids {
		k.pulls[id] = true
	}
	return k, nil
}

// pulled notes an image that was fetched; one that was there already is somebody's.
func (k *imageKeeper) pulled(image runtime.Image) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.unused, image.ID)
	if image.Cached || k.pulls[image.ID] {
		return nil
	}
	k.pulls[image.ID] = true
	return k.save()
}

// due returns the images that have not been needed for long enough.
func (k *imageKeeper) due(needed map[string]bool, now time.Time) []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var ids []string
	for id := range k.pulls {
		switch since, waiting := k.unused[id]; {
		case needed[id]:
			delete(k.unused, id)
		case !waiting:
			k.unused[id] = now
		case now.Sub(since) >= k.after:
			ids = append(ids, id)
		}
	}
	return ids
}

func (k *imageKeeper) gone(id string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.pulls, id)
	delete(k.unused, id)
	return k.save()
}

func (k *imageKeeper) save() error {
	ids := make([]string, 0, len(k.pulls))
	for id := range k.pulls {
		ids = append(ids, id)
	}
	return writeList(k.path, ids)
}

// prune removes pulled images that neither a container nor a wish needs.
func (s *Service) prune(ctx context.Context, containers []runtime.Container) {
	needed := map[string]bool{}
	for _, c := range containers {
		needed[c.ImageID] = true
	}
	s.mu.Lock()
	if !s.wished {
		s.mu.Unlock()
		return
	}
	for _, i := range s.instances {
		// A worker between its pull and its container needs an image that is nobody's yet.
		if i.busy {
			s.mu.Unlock()
			return
		}
		if i.want.GetDesiredState() == nodev1.DesiredState_DESIRED_STATE_RUNNING {
			needed[i.memory.image] = true
		}
	}
	s.mu.Unlock()
	for _, id := range s.images.due(needed, time.Now()) {
		err := s.deps.Runtime.RemoveImage(ctx, id)
		if err != nil {
			if !errors.Is(err, runtime.ErrInUse) {
				s.deps.Log.WarnContext(ctx, "an image that nothing needs could not be removed", "image", id, "error", err)
			}
			continue
		}
		s.metrics.pruned.Inc()
		s.deps.Log.InfoContext(ctx, "removed an image that nothing needs", "image", id)
		if err := s.images.gone(id); err != nil {
			s.deps.Log.WarnContext(ctx, "the list of pulled images could not be written", "error", err)
		}
	}
}

func readList(path string) ([]string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []string
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return list, nil
}

// writeList replaces the file in one step.
func writeList(path string, list []string) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	draft := path + ".new"
	if err := os.WriteFile(draft, text, 0o600); err != nil {
		return err
	}
	return os.Rename(draft, path)
}
