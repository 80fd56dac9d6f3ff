package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/nats-io/jsm.go/api"
	"github.com/nats-io/nats.go"
)

const (
	// chunkSize is what jsm.go and the nats program send at once.
	chunkSize = 64 << 10
	// unpackWithin bounds how long the server may take over the last of what it got.
	unpackWithin = time.Hour
)

// upload hands a copied stream to the servers. jsm.go has the same, but gives up at
// the first chunk that finds nobody: in a cluster the server that answers the request
// may be known to listen a moment later than its answer arrives, and what is given up
// stays behind as an empty stream of that name. Nobody has had such a chunk, and so it
// can be sent again.
func upload(ctx context.Context, nc *connection, data string, request api.JSApiStreamRestoreRequest) error {
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	message := &nats.Msg{Subject: fmt.Sprintf(api.JSApiStreamRestoreT, request.Config.Name), Data: text, Header: nats.Header{}}
	if level, err := api.RequiredApiLevel(request); err == nil && level > 0 {
		message.Header.Set(api.JSRequiredApiLevel, strconv.Itoa(level)) // an older server refuses, instead of dropping settings
	}
	var accepted api.JSApiStreamRestoreResponse
	if err := settled(ctx, func() error {
		accepted = api.JSApiStreamRestoreResponse{}
		return ask(ctx, nc, message, answerWithin, &accepted)
	}); err != nil {
		return err
	}
	file, err := os.Open(data)
	if err != nil {
		return err
	}
	defer file.Close()
	chunk := make([]byte, chunkSize)
	for {
		n, err := file.Read(chunk)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		var taken api.JSApiStreamCreateResponse // when it is not, and empty otherwise
		if err := settled(ctx, func() error {
			return ask(ctx, nc, &nats.Msg{Subject: accepted.DeliverSubject, Data: chunk[:n]}, answerWithin, &taken)
		}); err != nil {
			return err
		}
	}
	var made api.JSApiStreamCreateResponse // nothing more is the end
	if err := settled(ctx, func() error {
		return ask(ctx, nc, &nats.Msg{Subject: accepted.DeliverSubject}, unpackWithin, &made)
	}); err != nil {
		return err
	}
	if made.StreamInfo == nil {
		return errors.New("the server does not say that it is done")
	}
	return nil
}

// refusal is an answer that can be one.
type refusal interface{ ToError() error }

// ask sends a request and reads its answer, which may be empty.
func ask(ctx context.Context, nc *connection, message *nats.Msg, within time.Duration, answer refusal) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	m, err := nc.RequestMsgWithContext(ctx, message)
	if err != nil || len(m.Data) == 0 {
		return err
	}
	if err := json.Unmarshal(m.Data, answer); err != nil {
		return fmt.Errorf("the server's answer: %w", err)
	}
	return answer.ToError()
}
