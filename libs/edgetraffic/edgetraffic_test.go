package edgetraffic_test

import (
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/config"
	"github.com/slipway-paas/slipway/libs/edgetraffic"
)

// edge is told by its flags, daemon by the same with a prefix.
type (
	edge   struct{ edgetraffic.Rules }
	daemon struct {
		Edge edgetraffic.Rules `koanf:"edge"`
	}
)

func TestWhatIsPassedOnIsReadAsItWas(t *testing.T) {
	t.Parallel()
	var defaults, full daemon
	if err := config.Load("x", nil, nil, &defaults); err != nil {
		t.Fatal(err)
	}
	if err := config.Load("x", []string{
		"--edge-max-request-bytes", "5", "--edge-request-timeout", "7s", "--edge-compression=false", "--edge-header-timeout", "3s",
		"--edge-body-timeout", "4s", "--edge-drain", "1s", "--edge-eject-after", "0", "--edge-eject-burst", "2", "--edge-eject-for", "1m",
	}, nil, &full); err != nil {
		t.Fatal(err)
	}
	if want := (edgetraffic.Rules{
		MaxRequest: 5, RequestTimeout: 7 * time.Second, HeaderTimeout: 3 * time.Second, BodyTimeout: 4 * time.Second,
		Drain: time.Second, EjectBurst: 2, EjectFor: time.Minute,
	}); full.Edge != want {
		t.Fatalf("the flags say %+v, want %+v", full.Edge, want)
	}
	for _, want := range []edgetraffic.Rules{defaults.Edge, full.Edge} {
		if err := want.Validate("edge-"); err != nil {
			t.Fatal(err)
		}
		var got edge
		if err := config.Load("x", want.Args(), nil, &got); err != nil || got.Rules != want {
			t.Errorf("got %+v, want %+v, %v", got.Rules, want, err)
		}
	}
}

func TestWrongRulesAreRefusedWithAllReasons(t *testing.T) {
	t.Parallel()
	err := edgetraffic.Rules{
		MaxRequest: -1, RequestTimeout: 2 * time.Hour, HeaderTimeout: time.Hour, BodyTimeout: -1, Drain: -1, EjectAfter: -1, EjectBurst: -1,
	}.Validate("edge-")
	if err == nil {
		t.Fatal("accepted")
	}
	for _, flag := range []string{
		"max-request-bytes", "request-timeout", "header-timeout", "body-timeout", "drain", "eject-after", "eject-burst", "eject-for",
	} {
		if !strings.Contains(err.Error(), "--edge-"+flag+": ") {
			t.Errorf("nothing is said of --edge-%s in: %v", flag, err)
		}
	}
}
