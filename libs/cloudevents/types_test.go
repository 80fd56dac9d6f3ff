package cloudevents_test

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoregistry"
)

// This binary links no other package that knows events.
func TestEveryEventOfTheSchemaIsKnownHere(t *testing.T) {
	t.Parallel()
	schema := os.DirFS("../../proto")
	files, err := fs.Glob(schema, "slipway/*/v1/*events.proto")
	if err != nil || len(files) < 5 {
		t.Fatalf("the schema's files are %v, %v", files, err)
	}
	for _, file := range files {
		if _, err := protoregistry.GlobalFiles.FindFileByPath(file); err != nil {
			t.Errorf("a process that renders events does not know those of %s: import its package in types.go", strings.TrimPrefix(file, "slipway/"))
		}
	}
}
