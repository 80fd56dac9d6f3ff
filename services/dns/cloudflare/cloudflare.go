// Package cloudflare keeps zones and tunnels at Cloudflare, by its v4 API. One client
// makes all calls of a process, so that they share one rate.
//
// It is no internal package, for the fake API that holds it to package zonetest is in a
// module above.
package cloudflare

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/cloudflare/cloudflare-go/v6/dns"
	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/zero_trust"
	"github.com/cloudflare/cloudflare-go/v6/zones"
)

const (
	// DefaultURL is Cloudflare's own.
	DefaultURL = "https://api.cloudflare.com/client/v4/"
	// callTimeout bounds one call, the wait for its turn aside.
	callTimeout = 20 * time.Second
	// maxAnswer bounds what is read of one answer, in bytes.
	maxAnswer = 32 << 20
	// maxPages bounds a list, whatever the API says.
	maxPages = 1000
	// recordsPerPage and zonesPerPage are asked for; the API may give fewer. It takes
	// 50 zones at most.
	recordsPerPage = 1000
	zonesPerPage   = 50
	// maxComment is what a record's comment may have, in characters, with any plan.
	maxComment = 100
)

// Config of a client.
type Config struct {
	// Token is an API token with Zone:Read, DNS:Edit and, for tunnels, Cloudflare
	// Tunnel:Edit.
	Token string
	// Owner marks what this platform makes; others' marks, and none, are somebody else's.
	Owner string
	// URL is the API's base; DefaultURL when empty.
	URL string
	// Account holds the tunnels; that of the first zone when empty.
	Account string
	// PerWindow is how many calls are made in five minutes; Cloudflare answers 1200.
	PerWindow int
	// PageSize of lists; the API's most when 0.
	PageSize int
	// Timeout of one call; 20 s when 0.
	Timeout time.Duration
	// Transport makes the requests; http.DefaultTransport when nil.
	Transport http.RoundTripper
	// Watch is told of calls; nil for nobody.
	Watch Watch
}

// Watch is told what happens between us and the API, for figures.
type Watch interface {
	// Called: result is ok, gone, taken, refused, unauthorized, limited or unavailable.
	Called(result string)
	// Waited for a call's turn.
	Waited(time.Duration)
}

// Client calls the API. It may be used concurrently.
type Client struct {
	config  Config
	pace    *pace
	zones   *zones.ZoneService
	records *dns.RecordService
	tunnels *zero_trust.TunnelCloudflaredService
	account account
}

// New makes a client; it calls nothing yet.
func New(c Config) (*Client, error) {
	c.URL = cmp.Or(c.URL, DefaultURL)
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("%q is no URL of an API, like %s", c.URL, DefaultURL)
	}
	if !strings.HasSuffix(c.URL, "/") {
		c.URL += "/"
	}
	switch {
	case c.Token == "" || strings.ContainsAny(c.Token, " \r\n\t"):
		return nil, errors.New("the Cloudflare token is empty or has blanks in it")
	case c.Owner == "" || len(c.Owner) > maxOwner:
		return nil, fmt.Errorf("the mark of our records must have 1 to %d characters", maxOwner)
	case c.PerWindow < 0 || c.PageSize < 0:
		return nil, errors.New("the rate and the page size must not be negative")
	}
	client := &Client{config: c, pace: newPace(c.PerWindow, c.Watch)}
	options := []option.RequestOption{
		option.WithBaseURL(c.URL), option.WithAPIToken(c.Token),
		// Whoever calls decides about trying again: there what is wanted is known, and
		// may have changed.
		option.WithMaxRetries(0),
		option.WithRequestTimeout(cmp.Or(c.Timeout, callTimeout)),
		option.WithHTTPClient(&http.Client{
			Transport: c.Transport,
			// The token is for this address and no other.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}),
		option.WithMiddleware(client.answer),
	}
	client.zones = zones.NewZoneService(options...)
	client.records = dns.NewRecordService(options...)
	client.tunnels = zero_trust.NewTunnelCloudflaredService(options...)
	return client, nil
}

// Name is the provider's, for people.
func (c *Client) Name() string { return "cloudflare" }

// set fills one field of a request: the types of those are internal to the library, and
// its constructor for them is in its root package, which would link every product that
// Cloudflare has.
func set[T any](value *T, present *bool, v T) { *value, *present = v, true }

// pageSize is what a list asks for, most being the API's limit.
func (c *Client) pageSize(most int) int {
	if c.config.PageSize > 0 {
		return min(c.config.PageSize, most)
	}
	return most
}

// pages reads a list to its end, of which no more than maxPages are believed.
func pages[T any](most int, read func(page float64) (items []T, perPage int64, err error)) ([]T, error) {
	var all []T
	for page := 1; page <= maxPages; page++ {
		items, perPage, err := read(float64(page))
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		// The API may give fewer on a page than it was asked for; it says how many.
		if len(items) == 0 || perPage > 0 && len(items) < int(perPage) {
			return all, nil
		}
	}
	return nil, fmt.Errorf("the list has more than %d pages of %d", maxPages, most)
}
