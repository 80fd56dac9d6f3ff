package seal

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// checked is whose data key is rewrapped before all others: master keys that do not
// open it are older than the last rotation.
var checked = subjects.Of(subjects.Platform, "seal", "check")

// Rotated is what a rotation did.
type Rotated struct {
	// Key names the master key that wraps everything now.
	Key string
	// Resumed says that an earlier rotation had not come to its end, and no new key was made.
	Resumed bool
	// DataKeys are there, Rewrapped of them by this rotation.
	DataKeys, Rewrapped int
	// Unreadable are data keys that no master key opens: they were lost before.
	Unreadable int
	// Dropped names the master keys that nothing needs any more and the file has no
	// longer, Old those that were given and can be taken out.
	Dropped, Old []string
}

// Rotate makes a new master key and wraps every data key with it, while others seal and
// open, in this process and others. Then the master keys before it are dropped. When it
// was interrupted, the next one goes on with it. Errors: ErrHeld, ErrGiven, the key
// store's.
func (s *Sealer) Rotate(ctx context.Context) (Rotated, error) {
	failed := func(err error) (Rotated, error) { return Rotated{}, fmt.Errorf("rotate the master key: %w", err) }
	if s.master.file != "" {
		release, err := Hold(s.master.file)
		if err != nil {
			return failed(err)
		}
		defer func() { _ = release() }() // the process's end does it too
	}
	r, resumed, err := s.begin()
	if err != nil {
		return failed(err)
	}
	out := Rotated{Key: r.newest().name(), Resumed: resumed}
	// Who starts from here on with the old file alone is told so.
	if _, err := s.wrapped(ctx, checked, aead.AES256GCMKeyTemplate()); err != nil {
		return failed(err)
	}
	if err := s.rewrapAll(ctx, &out); err != nil {
		return failed(err)
	}
	old := r[1:].names()
	if s.master.file == "" {
		out.Old = old
		return out, nil
	}
	if err := s.master.replace(r[:1]); err != nil {
		return failed(err)
	}
	out.Dropped = old
	// For data keys whose makers were slow; the old master keys are still known here.
	if err := s.rewrapAll(ctx, &out); err != nil {
		return failed(err)
	}
	return out, nil
}

// begin sees to it that there is a new master key.
func (s *Sealer) begin() (r ring, resumed bool, err error) {
	if r, err = s.master.forWrapping(); err != nil || len(r) > 1 {
		return r, s.master.file != "", err
	}
	if s.master.file == "" {
		return nil, false, ErrGiven
	}
	key, err := drawMasterKey()
	if err != nil {
		return nil, false, err
	}
	if err := s.master.replace(append(ring{key}, r...)); err != nil {
		return nil, false, err
	}
	r, err = s.master.forWrapping()
	return r, false, err
}

// rewrapAll wraps every data key with the newest master key, until a look at all of
// them finds none that is not.
func (s *Sealer) rewrapAll(ctx context.Context, out *Rotated) error {
	if _, err := s.rewrap(ctx, checked); err != nil {
		return err
	}
	for {
		all, err := s.keys.All(ctx)
		if err != nil {
			return err
		}
		out.DataKeys, out.Unreadable = 0, 0
		changed := 0
		for _, a := range all {
			if a == checked {
				continue
			}
			out.DataKeys++
			did, err := s.rewrap(ctx, a)
			switch {
			case errors.Is(err, ErrUnreadable):
				out.Unreadable++
			case err != nil:
				return err
			case did:
				changed++
			}
		}
		out.Rewrapped += changed
		if changed == 0 {
			return nil
		}
	}
}

// rewrap wraps one data key with the newest master key, if there is one and it is not.
// Errors: ErrUnreadable, the key store's.
func (s *Sealer) rewrap(ctx context.Context, a subjects.Aggregate) (changed bool, err error) {
	for {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		r, err := s.master.forWrapping()
		if err != nil {
			return false, err
		}
		wrapped, err := s.keys.Get(ctx, a)
		if errors.Is(err, ErrNoKey) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if _, err := unwrapWith(r[:1], a, wrapped); err == nil {
			return false, nil
		}
		handle, err := s.unwrapped(ctx, a, wrapped)
		if errors.Is(err, ErrDestroyed) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		again, err := wrapWith(r, a, handle)
		if err != nil {
			return false, err
		}
		err = s.keys.Replace(ctx, a, wrapped, again)
		if !errors.Is(err, ErrKeyChanged) {
			return err == nil, err
		}
	}
}

func wrapWith(r ring, a subjects.Aggregate, handle *keyset.Handle) ([]byte, error) {
	var wrapped bytes.Buffer
	if err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&wrapped), r, associated(a)); err != nil {
		return nil, fmt.Errorf("wrap a data key: %w", err)
	}
	return wrapped.Bytes(), nil
}

func unwrapWith(r ring, a subjects.Aggregate, wrapped []byte) (*keyset.Handle, error) {
	handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(wrapped)), r, associated(a))
	if err != nil {
		return nil, fmt.Errorf("unwrap the data key of %s: %w", a, ErrUnreadable)
	}
	return handle, nil
}
