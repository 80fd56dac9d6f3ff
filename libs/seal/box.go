package seal

import "fmt"

// Box seals single values with a keyring itself, for those who share a key file and have
// no data keys. Where the log's secrets are not meant to be read, that keyring is not the
// platform's. It may be used concurrently.
type Box struct{ keys *Keyring }

// NewBox seals with those keys: the newest one seals, all open.
func NewBox(keys *Keyring) *Box { return &Box{keys: keys} }

// Seal encrypts the value for the place that is named: it opens nowhere else. Errors:
// those of reading the key file.
func (b *Box) Seal(value []byte, place string) ([]byte, error) {
	keys, err := b.keys.forWrapping()
	if err != nil {
		return nil, err
	}
	sealed, err := keys.Encrypt(value, []byte(place))
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return sealed, nil
}

// Open is the value that Seal was given for the same place. Errors: ErrUnreadable.
func (b *Box) Open(sealed []byte, place string) ([]byte, error) {
	value, err := b.keys.forUnwrapping().Decrypt(sealed, []byte(place))
	if err != nil {
		return nil, ErrUnreadable
	}
	return value, nil
}
