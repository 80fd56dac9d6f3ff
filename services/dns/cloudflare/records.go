package cloudflare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cloudflare/cloudflare-go/v6/dns"
	"github.com/cloudflare/cloudflare-go/v6/zones"

	"github.com/slipway-paas/slipway/services/dns/zone"
)

// What marks a record as ours is its comment: the mark, the owner, and for a challenge
// that it is one.
const (
	mark          = "slipway:"
	challengeMark = " challenge"
	maxOwner      = maxComment - len(mark) - len(challengeMark)
)

// account is the one that holds the tunnels.
type account struct {
	mu sync.Mutex
	id string
}

// Zones are the active ones that the token may see.
func (c *Client) Zones(ctx context.Context) ([]zone.Zone, error) {
	all, err := pages(zonesPerPage, func(page float64) ([]zones.Zone, int64, error) {
		if err := c.pace.wait(ctx); err != nil {
			return nil, 0, err
		}
		params := zones.ZoneListParams{}
		set(&params.Page.Value, &params.Page.Present, page)
		set(&params.PerPage.Value, &params.PerPage.Present, float64(c.pageSize(zonesPerPage)))
		res, err := c.zones.List(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return res.Result, res.ResultInfo.PerPage, nil
	})
	if err != nil {
		return nil, called("list the zones", err)
	}
	var usable []zone.Zone
	seen := map[string]bool{}
	for _, z := range all {
		if seen[z.ID] || z.Status != zones.ZoneStatusActive && z.Status != zones.ZoneStatusPending {
			continue
		}
		seen[z.ID] = true
		usable = append(usable, &held{client: c, id: z.ID, apex: strings.ToLower(z.Name)})
		c.account.note(z.Account.ID)
	}
	return usable, nil
}

func (a *account) note(id string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.id == "" {
		a.id = id
	}
}

// held is one zone.
type held struct {
	client   *Client
	id, apex string
}

func (z *held) Name() string { return z.apex }

func (z *held) ours() string { return mark + z.client.config.Owner }

// Ours are the records with our mark.
func (z *held) Ours(ctx context.Context) ([]zone.Record, error) {
	params := dns.RecordListParams{}
	by := dns.RecordListParamsComment{}
	set(&by.Startswith.Value, &by.Startswith.Present, z.ours())
	set(&params.Comment.Value, &params.Comment.Present, by)
	all, err := z.list(ctx, params)
	if err != nil {
		return nil, called("list our records of "+z.apex, err)
	}
	ours := all[:0]
	for _, r := range all {
		if r.Ours { // the filter knows no end of the owner's name, nor case
			ours = append(ours, r)
		}
	}
	return ours, nil
}

// Named are all records of one name.
func (z *held) Named(ctx context.Context, name string) ([]zone.Record, error) {
	params := dns.RecordListParams{}
	by := dns.RecordListParamsName{}
	set(&by.Exact.Value, &by.Exact.Present, name)
	set(&params.Name.Value, &params.Name.Present, by)
	all, err := z.list(ctx, params)
	return all, called("look up "+name, err)
}

func (z *held) list(ctx context.Context, params dns.RecordListParams) ([]zone.Record, error) {
	set(&params.ZoneID.Value, &params.ZoneID.Present, z.id)
	set(&params.PerPage.Value, &params.PerPage.Present, float64(z.client.pageSize(recordsPerPage)))
	all, err := pages(recordsPerPage, func(page float64) ([]dns.RecordResponse, int64, error) {
		if err := z.client.pace.wait(ctx); err != nil {
			return nil, 0, err
		}
		set(&params.Page.Value, &params.Page.Present, page)
		res, err := z.client.records.List(ctx, params)
		if err != nil {
			return nil, 0, err
		}
		return res.Result, res.ResultInfo.PerPage, nil
	})
	if err != nil {
		return nil, err
	}
	records := make([]zone.Record, 0, len(all))
	seen := map[string]bool{}
	for _, r := range all {
		// What was added while pages were read may be on two of them.
		if seen[r.ID] {
			continue
		}
		seen[r.ID] = true
		records = append(records, z.read(r))
	}
	return records, nil
}

func (z *held) read(r dns.RecordResponse) zone.Record {
	out := zone.Record{
		ID: r.ID, Name: strings.ToLower(strings.TrimSuffix(r.Name, ".")), Type: string(r.Type), Content: r.Content,
		TTL: int(r.TTL), Proxied: r.Proxied, CreatedAt: r.CreatedOn,
	}
	if out.Type == zone.TXT {
		out.Content = unquoted(r.Content)
	}
	out.Challenge = r.Comment == z.ours()+challengeMark
	out.Ours = out.Challenge || r.Comment == z.ours()
	return out
}

// unquoted is the text of a TXT record, whose character strings the API quotes or, for
// those made without quotes, does not.
func unquoted(content string) string {
	if !strings.HasPrefix(content, `"`) {
		return content
	}
	var text strings.Builder
	inside, escaped := false, false
	for _, c := range content {
		switch {
		case escaped:
			text.WriteRune(c)
			escaped = false
		case c == '\\' && inside:
			escaped = true
		case c == '"':
			inside = !inside
		case inside:
			text.WriteRune(c)
		}
	}
	return text.String()
}

func quoted(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(text) + `"`
}

// Create makes the record with our mark.
func (z *held) Create(ctx context.Context, r zone.Record) (zone.Record, error) {
	if !zone.Within(r.Name, z.apex) {
		// The API would take it for a name below the zone's.
		return r, fmt.Errorf("make %s: %w: it is not in the zone %s", r.Name, zone.ErrRefused, z.apex)
	}
	if err := z.client.pace.wait(ctx); err != nil {
		return r, called("make the record "+r.Name, err)
	}
	body := dns.RecordNewParamsBody{}
	comment, content := z.ours(), r.Content
	if r.Challenge {
		comment += challengeMark
	}
	if r.Type == zone.TXT {
		content = quoted(content)
	}
	set(&body.Name.Value, &body.Name.Present, r.Name)
	set(&body.Type.Value, &body.Type.Present, dns.RecordNewParamsBodyType(r.Type))
	set(&body.Content.Value, &body.Content.Present, content)
	set(&body.TTL.Value, &body.TTL.Present, dns.TTL(r.TTL))
	set(&body.Proxied.Value, &body.Proxied.Present, r.Proxied)
	set(&body.Comment.Value, &body.Comment.Present, comment)
	params := dns.RecordNewParams{Body: body}
	set(&params.ZoneID.Value, &params.ZoneID.Present, z.id)
	made, err := z.client.records.New(ctx, params)
	if err != nil {
		return r, called("make the record "+r.Name, err)
	}
	return z.read(*made), nil
}

// Update changes a record of ours in its place.
func (z *held) Update(ctx context.Context, r zone.Record) error {
	if !r.Ours {
		return zone.ErrForeign
	}
	if err := z.client.pace.wait(ctx); err != nil {
		return called("change the record "+r.Name, err)
	}
	body := dns.RecordEditParamsBody{}
	content := r.Content
	if r.Type == zone.TXT {
		content = quoted(content)
	}
	set(&body.Name.Value, &body.Name.Present, r.Name)
	set(&body.Type.Value, &body.Type.Present, dns.RecordEditParamsBodyType(r.Type))
	set(&body.Content.Value, &body.Content.Present, content)
	set(&body.TTL.Value, &body.TTL.Present, dns.TTL(r.TTL))
	set(&body.Proxied.Value, &body.Proxied.Present, r.Proxied)
	params := dns.RecordEditParams{Body: body}
	set(&params.ZoneID.Value, &params.ZoneID.Present, z.id)
	_, err := z.client.records.Edit(ctx, r.ID, params)
	return called("change the record "+r.Name, err)
}

// Delete removes a record of ours.
func (z *held) Delete(ctx context.Context, r zone.Record) error {
	if !r.Ours {
		return zone.ErrForeign
	}
	if err := z.client.pace.wait(ctx); err != nil {
		return called("remove the record "+r.Name, err)
	}
	params := dns.RecordDeleteParams{}
	set(&params.ZoneID.Value, &params.ZoneID.Present, z.id)
	_, err := z.client.records.Delete(ctx, r.ID, params)
	if errors.Is(err, zone.ErrGone) {
		return nil
	}
	return called("remove the record "+r.Name, err)
}
