// Package cloudflare knows the addresses that Cloudflare's proxies connect from.
package cloudflare

import (
	_ "embed"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// Keyword stands for Cloudflare's ranges in a list of proxies.
const Keyword = "cloudflare"

//go:embed ranges.txt
var published string

// Ranges are those in the file: one a line, # begins a comment. An empty path is for
// the list that is built in.
func Ranges(path string) ([]netip.Prefix, error) {
	text := published
	if path != "" {
		file, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("reading Cloudflare's address ranges: %w", err)
		}
		text = string(file)
	}
	var ranges []netip.Prefix
	n := 0
	for line := range strings.Lines(text) {
		n++
		entry, _, _ := strings.Cut(line, "#")
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		r, err := netip.ParsePrefix(entry)
		if err != nil {
			return nil, fmt.Errorf("line %d of Cloudflare's address ranges: %q is none, e.g. 173.245.48.0/20", n, entry)
		}
		ranges = append(ranges, r)
	}
	if len(ranges) == 0 {
		return nil, fmt.Errorf("the file %s holds no address range", path)
	}
	return ranges, nil
}
