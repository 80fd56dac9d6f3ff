package oauth

import (
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// maxForm bounds a client's request, in bytes.
const maxForm = 64 << 10

// wire reads what a client sent, as a form or as JSON, and hands it on as the form that
// op understands. Parameters count only in the body, where no log or browser's history
// keeps them, and only once (RFC 6749, section 3.2).
func (h *Handler) wire() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		form, err := readParameters(w, r)
		if err != nil {
			op.WriteError(w, r, err, nil)
			return
		}
		text := form.Encode()
		passed := r.Clone(r.Context())
		passed.URL.RawQuery = ""
		passed.Form, passed.PostForm = nil, nil
		passed.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		passed.Body, passed.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
		h.op.ServeHTTP(challenging{w}, passed)
	})
}

// challenging says with a 401 how a client authenticates (RFC 6749, section 5.2).
type challenging struct{ http.ResponseWriter }

func (c challenging) WriteHeader(code int) {
	if code == http.StatusUnauthorized {
		c.Header().Set("WWW-Authenticate", `Basic realm="slipway"`)
	}
	c.ResponseWriter.WriteHeader(code)
}

func readParameters(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	malformed := func(message string) error { return oidc.ErrInvalidRequest().WithDescription("%s", message) }
	if r.URL.RawQuery != "" {
		return nil, malformed("Send the parameters in the body; addresses end up in logs.")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxForm))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, op.NewStatusError(malformed("The body is larger than 64 KiB; send less."), http.StatusRequestEntityTooLarge)
	case err != nil:
		return nil, malformed("The body could not be read to its end; send it again.")
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		kind = ""
	}
	var form url.Values
	switch kind {
	case "application/x-www-form-urlencoded":
		if form, err = url.ParseQuery(string(body)); err != nil {
			return nil, malformed("The body is no form; send name=value pairs, percent-encoded.")
		}
	case "application/json":
		if form, err = readJSON(body); err != nil {
			return nil, malformed("The body is no JSON object whose values are texts.")
		}
	default:
		return nil, op.NewStatusError(malformed("Send a form (application/x-www-form-urlencoded) or JSON (application/json)."), http.StatusUnsupportedMediaType)
	}
	for name, values := range form {
		switch {
		case len(values) > 1:
			return nil, malformed("A parameter is sent more than once.")
		case values[0] == "":
			// As if it were not sent (RFC 6749, section 3.2).
			delete(form, name)
		}
	}
	return form, nil
}

// readJSON reads an object of texts. Other than Unmarshal it sees names that come twice.
func readJSON(body []byte) (url.Values, error) {
	decoder := json.NewDecoder(strings.NewReader(string(body)))
	if token, err := decoder.Token(); err != nil || token != json.Delim('{') {
		return nil, errors.New("no object")
	}
	form := url.Values{}
	for decoder.More() {
		name, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		var value *string
		if err := decoder.Decode(&value); err != nil {
			return nil, err
		}
		if value == nil {
			value = new(string)
		}
		form.Add(name.(string), *value)
	}
	if _, err := decoder.Token(); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than an object")
	}
	return form, nil
}
