package module

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"strings"
	"sync/atomic"

	"github.com/slipway-paas/slipway/services/proxy-config/edge/tunnel"
)

// tunnel passes bytes between a client and the instance that switched protocols,
// until either ends, or the instance has left the route and its drain is over.
func (x *passage) tunnel(res *http.Response) error {
	app, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return errors.Join(errors.New("the connection to the app cannot be written to"), res.Body.Close())
	}
	defer app.Close()
	protocol := x.in.Header.Get("Upgrade")
	if !strings.EqualFold(protocol, res.Header.Get("Upgrade")) {
		return fmt.Errorf("the app switched to %q when %q was asked for", res.Header.Get("Upgrade"), protocol)
	}
	client, ahead, err := x.hijack(res.Header)
	if err != nil {
		return err
	}
	defer client.Close()

	toClient, toApp := io.Writer(client), io.Writer(app)
	end := func() { _ = client.Close(); _ = app.Close() }
	if strings.EqualFold(protocol, "websocket") {
		ws := tunnel.NewWebSocket(client, app)
		toClient, toApp, end = ws.ToClient(), ws.ToApp(), ws.End
	}
	entry := x.proxy.deps.Tunnels.Add(x.host, x.instance.Address, x.drain, end)
	defer entry.Close()
	passBoth(toClient, app, toApp, io.MultiReader(bytes.NewReader(ahead), client))
	return nil
}

// hijack answers the client and takes its connection over. ahead is what the client
// sent without waiting for the answer.
func (x *passage) hijack(header http.Header) (client net.Conn, ahead []byte, err error) {
	h := x.w.Header()
	for name, values := range header {
		h[name] = values
	}
	spellWebSocketHeaders(h)
	x.w.WriteHeader(http.StatusSwitchingProtocols)
	client, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return nil, nil, fmt.Errorf("taking over the client's connection: %w", err)
	}
	if err := buffered.Flush(); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("answering the switch of protocols: %w", err), client.Close())
	}
	ahead, err = buffered.Reader.Peek(buffered.Reader.Buffered())
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("reading what the client sent ahead: %w", err), client.Close())
	}
	return client, bytes.Clone(ahead), nil
}

// passBoth returns when both directions have ended, or one of them failed.
func passBoth(toClient io.Writer, app io.Reader, toApp io.Writer, client io.Reader) {
	ended := make(chan error, 2)
	pass := func(to io.Writer, from io.Reader) {
		_, err := io.Copy(to, from)
		if err == nil {
			err = closeWrite(to)
		}
		ended <- err
	}
	go pass(toClient, app)
	go pass(toApp, client)
	if err := <-ended; err == nil {
		<-ended
	}
}

var errNoHalfClose = errors.New("the connection ends as a whole")

// closeWrite ends one direction where that can be said.
func closeWrite(to io.Writer) error {
	if half, ok := to.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errNoHalfClose
}

func isEventStream(res *http.Response) bool {
	kind := res.Header.Get("Content-Type")
	if len(kind) < len("text/event-stream") {
		return false
	}
	kind, _, err := mime.ParseMediaType(kind)
	return err == nil && kind == "text/event-stream"
}

// endable makes an event stream end when its instance has left and the drain is over.
// It ends as if the app had ended it, so that the client asks again.
func (x *passage) endable(body io.ReadCloser) io.ReadCloser {
	b := &endableBody{ReadCloser: body}
	b.entry = x.proxy.deps.Tunnels.Add(x.host, x.instance.Address, x.drain, b.end)
	return b
}

type endableBody struct {
	io.ReadCloser
	entry *tunnel.Tunnel
	ended atomic.Bool
}

func (b *endableBody) end() {
	b.ended.Store(true)
	// Frees the reader.
	_ = b.ReadCloser.Close()
}

func (b *endableBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && b.ended.Load() {
		err = io.EOF
	}
	return n, err
}

func (b *endableBody) Close() error {
	b.entry.Close()
	return b.ReadCloser.Close()
}
