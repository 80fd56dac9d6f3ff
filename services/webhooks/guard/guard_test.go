package guard_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/services/webhooks/guard"
)

func TestOnlyPublicAddressesAreLetThrough(t *testing.T) {
	t.Parallel()
	for _, inside := range []string{
		"0.0.0.0", "0.1.2.3", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.9.9.9", "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.168.1.1",
		"198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
		"::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::7f00:1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "100::1", "2001::1", "2001:db8::1",
		"2002:7f00:1::", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1",
	} {
		if err := (guard.Guard{}).Address(netip.MustParseAddr(inside)); !errors.Is(err, guard.ErrRefused) {
			t.Errorf("%s: %v", inside, err)
		}
	}
	for _, outside := range []string{"1.1.1.1", "93.184.215.14", "172.32.0.1", "100.128.0.1", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:1.1.1.1"} {
		if err := (guard.Guard{}).Address(netip.MustParseAddr(outside)); err != nil {
			t.Errorf("%s: %v", outside, err)
		}
	}
	own := guard.Guard{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")}}
	if own.Address(netip.MustParseAddr("10.1.2.3")) != nil || own.Address(netip.MustParseAddr("10.2.0.1")) == nil {
		t.Error("what is allowed is not exactly what was said")
	}
}

func TestURLsThatCannotBeMeantAreRefused(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "example.com", "http://example.com", "ftp://example.com", "file:///etc/passwd", "https://", "https:example.com", "https://u:p@example.com", "https://example.com/#x",
		"https://127.0.0.1", "https://[::1]/", "https://[::ffff:7f00:1]/", "https://localhost", "https://LOCALHOST./", "https://10.0.0.1:8443/x", "https://a/\r\nHost: b", "https://example.com/" + strings.Repeat("x", 2048),
	} {
		if (guard.Guard{}).URL(bad) == "" {
			t.Errorf("%.60q was taken", bad)
		}
	}
	if why := (guard.Guard{}).URL("https://example.com:8443/hook?a=b"); why != "" {
		t.Error(why)
	}
}

// Whatever a name says, and however it is written: it is the address that counts.
func TestNoConnectionIsMadeToWhereNamesLead(t *testing.T) {
	t.Parallel()
	asked := false
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer s.Close()
	client := guard.Guard{AllowHTTP: true}.Client(5 * time.Second)
	_, port, _ := strings.Cut(strings.TrimPrefix(s.URL, "http://"), ":")
	for _, host := range []string{"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0", "[::1]"} {
		res, err := client.Get("http://" + host + ":" + port)
		if err == nil {
			_ = res.Body.Close()
		}
		if !errors.Is(err, guard.ErrRefused) || asked {
			t.Errorf("%s: %v", host, err)
		}
	}
}
