package table

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"google.golang.org/protobuf/encoding/protodelim"

	"github.com/slipway-paas/slipway/gen/slipway/routing/v1"
)

// maxRouteBytes bounds one route in the file; a real one is a few hundred bytes.
const maxRouteBytes = 1 << 20

// Disk is the copy an edge starts from while the control plane is away: one file
// of length-delimited routingv1.Route messages, replaced whole.
type Disk struct {
	// Path of the file. Its directory must exist.
	Path string
}

// Load fills the table from the file. No file is no error and leaves the table as
// it was; a damaged file is an error and leaves it so too. The revision stays 0:
// what was acknowledged before the restart says nothing of the view today.
func (d Disk) Load(t *Table) error {
	f, err := os.Open(d.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("opening the route table's copy: %w", err)
	}
	defer f.Close()
	var routes []*routingv1.Route
	in := bufio.NewReader(f)
	opts := protodelim.UnmarshalOptions{MaxSize: maxRouteBytes}
	for {
		r := &routingv1.Route{}
		err := opts.UnmarshalFrom(in, r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("reading the route table's copy %s after %d routes: %w", d.Path, len(routes), err)
		}
		routes = append(routes, r)
	}
	t.Replace(routes, 0)
	return nil
}

// Save writes the table to the file, atomically: a crash leaves the old copy or
// the new one.
func (d Disk) Save(t *Table) error {
	f, err := os.CreateTemp(filepath.Dir(d.Path), filepath.Base(d.Path)+".*.tmp")
	if err != nil {
		return fmt.Errorf("making the route table's copy: %w", err)
	}
	defer os.Remove(f.Name())
	if err := write(f, t.Routes()); err != nil {
		return errors.Join(fmt.Errorf("writing the route table's copy: %w", err), f.Close())
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("closing the route table's copy: %w", err)
	}
	if err := os.Rename(f.Name(), d.Path); err != nil {
		return fmt.Errorf("replacing the route table's copy: %w", err)
	}
	return nil
}

func write(f *os.File, routes []*routingv1.Route) error {
	out := bufio.NewWriterSize(f, 64<<10)
	for _, r := range routes {
		if _, err := protodelim.MarshalTo(out, r); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Sync()
}
