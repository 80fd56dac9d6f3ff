package podman

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/containers"
	"go.opentelemetry.io/otel/attribute"

	"github.com/slipway-paas/slipway/services/node-agent/runtime"
)

// maxTailRead bounds what is read to find the last lines: lines have no bound.
const maxTailRead = 4 << 20

// Tail implements runtime.Runtime.
func (p *Podman) Tail(ctx context.Context, id string, n, maxBytes int) (_ []string, err error) {
	ctx, end := p.call(ctx, "logs", attribute.String("container.id", id))
	defer end(&err)
	conn, err := bindings.GetClient(ctx)
	if err != nil {
		return nil, err
	}
	query := url.Values{"stdout": {"true"}, "stderr": {"true"}, "tail": {strconv.Itoa(n)}}
	response, err := conn.DoRequest(ctx, nil, http.MethodGet, "/containers/%s/logs", query, nil, id)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if !response.IsSuccess() {
		return nil, notFound(response.Process(nil))
	}
	text, err := readFrames(io.LimitReader(response.Body, maxTailRead))
	if err != nil {
		return nil, fmt.Errorf("read the output: %w", err)
	}
	return runtime.LastLines(text, n, maxBytes), nil
}

func readFrames(r io.Reader) (string, error) {
	var text strings.Builder
	header := make([]byte, 1024)
	for {
		_, size, err := containers.DemuxHeader(r, header)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return text.String(), nil
		}
		if err != nil {
			return "", err
		}
		if _, err := io.CopyN(&text, r, int64(size)); err != nil {
			return text.String(), nil // the read bound, or a container that went
		}
	}
}
