package table_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/table"
)

// FuzzEveryCopyIsReadWholeOrNot: whatever is in the file that an edge starts from, its
// table is filled from it or stays empty, and a copy that was read is written alike.
func FuzzEveryCopyIsReadWholeOrNot(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte("\x08\n\x06a.test"))
	f.Add([]byte("\x08\n\x06a.test\x08\n\x06A.test"))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\xff\x7f"))
	f.Add([]byte("\x00\x00\x00"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		disk := table.Disk{Path: filepath.Join(dir, "routes.pb")}
		if err := os.WriteFile(disk.Path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		var first, again table.Table
		if err := disk.Load(&first); err != nil {
			if first.Loaded() || first.Len() != 0 {
				t.Fatalf("a damaged copy was taken: %d hosts", first.Len())
			}
			return
		}
		if err := disk.Save(&first); err != nil {
			t.Fatal(err)
		}
		if err := disk.Load(&again); err != nil || again.Len() != first.Len() || len(first.Routes()) != first.Len() {
			t.Fatalf("%d hosts were saved, %d came back, %v", first.Len(), again.Len(), err)
		}
	})
}
