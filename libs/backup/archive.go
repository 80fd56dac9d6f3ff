package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"filippo.io/age"
)

// Names in the archive; below streams/ and registry/ there are more.
const (
	nameManifest = "manifest.json"
	nameSums     = "sums.json" // the last one
	maxNotes     = 64 << 20    // of manifest.json and sums.json

	ageMagic = "age-encryption.org/v1\n"
)

// writer writes an archive: tar, in age when there is a passphrase. Its last entry
// has the sums of all before it.
type writer struct {
	ctx  context.Context
	file *os.File
	age  io.WriteCloser // nil in clear
	tar  *tar.Writer
	sums map[string]string
}

func newWriter(ctx context.Context, path, passphrase string) (*writer, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("write the backup: %w", err)
	}
	w := &writer{ctx: ctx, file: file, sums: map[string]string{}}
	out := io.Writer(file)
	if passphrase != "" {
		recipient, err := age.NewScryptRecipient(passphrase)
		if err == nil {
			w.age, err = age.Encrypt(file, recipient)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("encrypt the backup: %w", err), file.Close())
		}
		out = w.age
	}
	w.tar = tar.NewWriter(out)
	return w, nil
}

func (w *writer) add(name string, size int64, content io.Reader) error {
	if err := w.ctx.Err(); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if err := w.tar.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	sum := sha256.New()
	// A file that has grown is as it was; one that has shrunk is an error.
	if _, err := io.CopyN(io.MultiWriter(w.tar, sum), content, size); err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	w.sums[name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

func (w *writer) addFile(name, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	return w.add(name, info.Size(), file)
}

func (w *writer) addJSON(name string, value any) error {
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s to the backup: %w", name, err)
	}
	return w.add(name, int64(len(text)), bytes.NewReader(text))
}

// finish writes the sums and brings all of it to the disk.
func (w *writer) finish() error {
	err := errors.Join(w.addJSON(nameSums, w.sums), w.tar.Close())
	if w.age != nil {
		err = errors.Join(err, w.age.Close())
	}
	if err := errors.Join(err, w.file.Sync(), w.file.Close()); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	return nil
}

// abandon closes the file of an archive that did not succeed.
func (w *writer) abandon(cause error) error { return errors.Join(cause, w.file.Close()) }

// read hands over each entry and checks the sums of all. Errors: ErrDamaged,
// ErrPassphrase.
func read(ctx context.Context, path, passphrase string, each func(name string, content io.Reader) error) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the backup: %w", err)
	}
	defer file.Close()
	in, err := decrypt(bufio.NewReaderSize(file, 1<<20), passphrase)
	if err != nil {
		return err
	}
	sums, archive := map[string]string{}, tar.NewReader(in)
	for {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		header, err := archive.Next()
		if err != nil { // the end too: the sums come first
			return fmt.Errorf("%w: it is no backup, or not all of one: %w", ErrDamaged, err)
		}
		if header.Typeflag != tar.TypeReg || !filepath.IsLocal(header.Name) {
			return fmt.Errorf("%w: %q does not belong in it", ErrDamaged, header.Name)
		}
		if header.Name == nameSums {
			return checkSums(archive, sums)
		}
		sum := sha256.New()
		content := io.TeeReader(intact{archive}, sum)
		if err := each(header.Name, content); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return fmt.Errorf("read the backup: %w", err)
		}
		sums[header.Name] = hex.EncodeToString(sum.Sum(nil))
	}
}

// intact says of what cannot be read that it is damaged.
type intact struct{ in io.Reader }

func (i intact) Read(b []byte) (int, error) {
	n, err := i.in.Read(b)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return n, err
}

func decrypt(in *bufio.Reader, passphrase string) (io.Reader, error) {
	begin, err := in.Peek(len(ageMagic))
	if err != nil {
		return nil, fmt.Errorf("%w: it ends before anything is said: %w", ErrDamaged, err)
	}
	if string(begin) != ageMagic {
		return in, nil
	}
	if passphrase == "" {
		return nil, ErrPassphrase
	}
	identity, err := age.NewScryptIdentity(passphrase)
	if err != nil {
		return nil, fmt.Errorf("decrypt the backup: %w", err)
	}
	out, err := age.Decrypt(in, identity)
	var none *age.NoIdentityMatchError
	switch {
	case errors.As(err, &none):
		return nil, fmt.Errorf("%w, which this is not", ErrPassphrase)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return out, nil
}

func checkSums(in io.Reader, got map[string]string) error {
	var want map[string]string
	if err := json.NewDecoder(io.LimitReader(in, maxNotes)).Decode(&want); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(want) != len(got) {
		return fmt.Errorf("%w: it has %d parts of %d", ErrDamaged, len(got), len(want))
	}
	for name, sum := range want {
		if got[name] != sum {
			return fmt.Errorf("%w: %s was changed", ErrDamaged, name)
		}
	}
	return nil
}

// readBack reads a backup to its end.
func readBack(ctx context.Context, path, passphrase string) error {
	return read(ctx, path, passphrase, func(string, io.Reader) error { return nil })
}
