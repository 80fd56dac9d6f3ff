package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/slipway-paas/slipway/libs/rpc"
)

func TestCertsGivesEachServiceWhatItIsStartedWith(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "certs")
	for range 2 { // the second renews
		var out, errs bytes.Buffer
		if code := certs([]string{"--dir", dir, "--life", "1h"}, time.Now(), &out, &errs); code != exitOK {
			t.Fatalf("exit code %d: %s", code, errs.String())
		}
		for _, name := range []string{"gateway", "identity", "scheduler", "billing"} {
			as := rpc.TLS{Service: name, CA: filepath.Join(dir, "ca.crt"), Identity: filepath.Join(dir, name+".pem")}
			if err := as.Validate(time.Now()); err != nil {
				t.Error(err)
			}
			if !strings.Contains(out.String(), "--tls-identity "+as.Identity) {
				t.Errorf("it does not say how %s is started: %s", name, out.String())
			}
		}
	}
}

func TestCertsSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"--dir":             nil,
		"no service's name": {"--dir", t.TempDir(), "--services", "../gateway"},
		"must be good for":  {"--dir", t.TempDir(), "--life", "9000h"},
		"--days":            {"--dir", t.TempDir(), "--days", "1"},
	} {
		var out, errs bytes.Buffer
		if code := certs(args, time.Now(), &out, &errs); code == exitOK || !strings.Contains(errs.String(), want) {
			t.Errorf("%v: exit code %d, %q", args, code, errs.String())
		}
	}
}
