package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// state is how far a request is.
type state string

const (
	// stateBusy is under way, as long as its lease is renewed.
	stateBusy state = "busy"
	// stateFree is waiting for another attempt: the last one came to nothing certain.
	stateFree state = "free"
	// stateDone is answered.
	stateDone state = "done"
)

// record is what is kept of one request.
type record struct {
	State   state     `json:"state"`
	Command string    `json:"command"`
	Lease   time.Time `json:"lease,omitzero"`
	Expires time.Time `json:"expires"`
	// Sealed is the fingerprint and the answer: bodies hold passwords, and answers
	// secrets that are shown once.
	Sealed []byte `json:"sealed"`
}

// content is what is sealed.
type content struct {
	fingerprint string
	answer      *Answer
}

// Names of what is sealed.
const (
	sealedFingerprint = "fingerprint"
	sealedAnswer      = "answer"
)

func readRecord(text []byte) (record, error) {
	var r record
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return record{}, fmt.Errorf("read the record of an earlier request: %w", err)
	}
	switch r.State {
	case stateBusy, stateFree, stateDone:
		return r, nil
	}
	return record{}, fmt.Errorf("read the record of an earlier request: there is no state %q", r.State)
}

func (a *attempt) sealed(ctx context.Context, answer *Answer) ([]byte, error) {
	values := map[string]string{sealedFingerprint: a.request.fingerprint()}
	if answer != nil {
		text, err := json.Marshal(answer)
		if err != nil {
			return nil, fmt.Errorf("seal an answer: %w", err)
		}
		values[sealedAnswer] = string(text)
	}
	_, sealed, err := a.keeper.seal.Seal(ctx, a.request.Owner, values)
	if err != nil {
		return nil, fmt.Errorf("keep a request: %w", err)
	}
	return sealed, nil
}

func (a *attempt) open(ctx context.Context, r record) (content, error) {
	values, err := a.keeper.seal.Open(ctx, a.request.Owner, r.Sealed)
	if err != nil {
		return content{}, fmt.Errorf("read what is kept of a request: %w", err)
	}
	c := content{fingerprint: values[sealedFingerprint]}
	if text, ok := values[sealedAnswer]; ok {
		if err := json.Unmarshal([]byte(text), &c.answer); err != nil {
			return content{}, fmt.Errorf("read a kept answer: %w", err)
		}
	}
	return c, nil
}

// fingerprint tells contents apart.
func (r Request) fingerprint() string {
	hash := sha256.Sum256(r.Content)
	return hex.EncodeToString(hash[:])
}

// caller and name are what the bucket knows a request by.
func (r Request) caller() string { return short(r.Owner.Org, r.Owner.Kind, r.Owner.ID) }

func (r Request) name() string { return subjects.AnswerKey(r.caller(), short(r.Endpoint, r.Key)) }

func short(parts ...string) string {
	hash := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(hash, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(hash.Sum(nil)[:16])
}
