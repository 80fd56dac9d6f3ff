package dns

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// provider is the only one there is, and the key of its sealed token.
const provider = "cloudflare"

// token is the one that is given, which is sealed and kept, or the one kept from before;
// empty for none.
func (s *Service) token(ctx context.Context) (string, error) {
	bucket, err := s.deps.JetStream.KeyValue(ctx, subjects.BucketProviders)
	if err != nil {
		return "", fmt.Errorf("open the bucket of providers: %w", err)
	}
	if s.config.Cloudflare.Forget {
		if err := bucket.Purge(ctx, provider); err != nil {
			return "", fmt.Errorf("forget the Cloudflare token: %w", err)
		}
		return "", nil
	}
	given, err := s.config.Cloudflare.given()
	if err != nil {
		return "", err
	}
	of := subjects.Of(subjects.Platform, subjects.Provider, provider)
	kept := ""
	entry, err := bucket.Get(ctx, provider)
	switch {
	case errors.Is(err, jetstream.ErrKeyNotFound):
	case err != nil:
		return "", fmt.Errorf("read the Cloudflare token: %w", err)
	default:
		values, err := s.deps.Seal.Open(ctx, of, entry.Value())
		if err != nil && given == "" {
			return "", fmt.Errorf("open the Cloudflare token: %w: give it again with --cloudflare-token-file", err)
		}
		kept = values["token"]
	}
	if given == "" || subtle.ConstantTimeCompare([]byte(given), []byte(kept)) == 1 {
		return kept, nil
	}
	_, sealed, err := s.deps.Seal.Seal(ctx, of, map[string]string{"token": given})
	if err != nil {
		return "", fmt.Errorf("seal the Cloudflare token: %w", err)
	}
	if _, err := bucket.Put(ctx, provider, sealed); err != nil {
		return "", fmt.Errorf("keep the Cloudflare token: %w", err)
	}
	return given, nil
}
