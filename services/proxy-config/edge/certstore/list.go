package certstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// List implements certmagic.Storage: what is right below the path, or with recursive all
// below it. As with files, what is there only as a part of other paths is listed too.
// Errors: fs.ErrNotExist, ErrAway.
func (s *Storage) List(ctx context.Context, path string, recursive bool) ([]string, error) {
	path = strings.Trim(path, "/")
	values, err := s.below(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	if len(values) == 0 {
		if _, _, err := s.sealed(ctx, path); err != nil {
			return nil, fmt.Errorf("list %s: %w", path, err)
		}
		return nil, nil
	}
	listed := map[string]struct{}{}
	for _, value := range values {
		rest := strings.TrimPrefix(strings.TrimPrefix(value, path), "/")
		at := strings.TrimSuffix(value, rest)
		for part := range strings.SplitSeq(rest, "/") {
			at += part
			listed[at] = struct{}{}
			if !recursive {
				break
			}
			at += "/"
		}
	}
	return slices.Sorted(maps.Keys(listed)), nil
}

// below are the paths of all values below the path.
func (s *Storage) below(ctx context.Context, path string) ([]string, error) {
	var paths []string
	err := s.ask(ctx, &s.values, subjects.BucketCertificates, func(ctx context.Context, bucket jetstream.KeyValue) error {
		keys, err := bucket.ListKeysFiltered(ctx, subjects.CertificatesBelow(path))
		if err != nil {
			return err
		}
		defer func() { _ = keys.Stop() }()
		for key := range keys.Keys() {
			value, err := subjects.ParseCertificateKey(key)
			if err != nil {
				return err
			}
			paths = append(paths, value)
		}
		return ctx.Err()
	})
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, jetstream.ErrNoKeysFound) {
		return nil, nil
	}
	return paths, err
}
