package scenarios

import (
	"testing"

	"github.com/slipway-paas/slipway/e2e/drops"
)

// The long form is the bench's section drops.
func TestNotOneRequestIsDropped(t *testing.T) {
	t.Parallel()
	s := platform(t)
	report, err := drops.Tell(t.Context(), s, drops.Options{Name: name(t), Restarts: 3, Others: 5})
	if report != nil {
		t.Log(report)
		if served, failed := report.Requests(); failed > 0 || served == 0 {
			t.Errorf("%d requests failed, %d were served", failed, served)
		}
		if report.Cut > 0 || report.Messages == 0 || report.Refused > 0 {
			t.Errorf("of the untouched app %d WebSockets and streams were cut; the app's own were refused %d times", report.Cut, report.Refused)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
