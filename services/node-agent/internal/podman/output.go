package podman

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"go.opentelemetry.io/otel/attribute"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// maxTailRead bounds what is read of a container's log: an app that writes byte by
// byte has a record of 50 bytes for each.
const maxTailRead = 4 << 20

// Tail implements runtime.Runtime. It reads the log's file, from the end: Podman's API
// reads forward, and joins a line without an end to the other stream's next one.
func (p *Podman) Tail(ctx context.Context, id string, maxBytes int) (_ runtime.Output, err error) {
	ctx, end := p.call(ctx, "logs", attribute.String("container.id", id))
	defer end(&err)
	if err := p.mustBeOurs(ctx, id); err != nil {
		return runtime.Output{}, err
	}
	data, err := containers.Inspect(ctx, id, nil)
	if err != nil {
		return runtime.Output{}, notFound(err)
	}
	if data.HostConfig == nil || data.HostConfig.LogConfig == nil || data.HostConfig.LogConfig.Path == "" {
		return runtime.Output{}, errors.New("the container has no log file")
	}
	records, cut, err := readEnd(data.HostConfig.LogConfig.Path, maxTailRead)
	if err != nil {
		return runtime.Output{}, fmt.Errorf("read the output: %w", err)
	}
	output := runtime.End(textOf(records), maxBytes)
	output.Cut = output.Cut || cut
	return output, nil
}

// readEnd returns at most that many bytes of the file's end, from the start of a line.
func readEnd(path string, most int64) (text string, cut bool, err error) {
	file, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // nothing was written yet
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return "", false, err
	}
	start := max(info.Size()-most, 0)
	read, err := io.ReadAll(io.NewSectionReader(file, start, info.Size()-start))
	if err != nil {
		return "", false, err
	}
	text = string(read)
	if start > 0 {
		_, text, _ = strings.Cut(text, "\n")
	}
	return text, start > 0, nil
}

// textOf puts the records of a k8s-file log together: "<time> <stream> <P|F> <text>",
// where P is a part of a line that goes on in the stream's next record.
func textOf(records string) string {
	var text strings.Builder
	var open [2]strings.Builder // stdout, stderr
	last := 0
	for record := range strings.Lines(records) {
		fields := strings.SplitN(strings.TrimSuffix(record, "\n"), " ", 4)
		if len(fields) < 4 {
			continue // the end of a record that is being written
		}
		stream := 0
		if fields[1] == "stderr" {
			stream = 1
		}
		line := &open[stream]
		line.WriteString(fields[3])
		last = stream
		if fields[2] == "F" {
			text.WriteString(line.String() + "\n")
			line.Reset()
		}
	}
	for _, stream := range []int{1 - last, last} {
		if open[stream].Len() > 0 {
			text.WriteString(open[stream].String() + "\n")
		}
	}
	return text.String()
}
