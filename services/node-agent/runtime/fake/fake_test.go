package fake_test

import (
	"testing"

	"github.com/slipway-paas/slipway/services/node-agent/runtime/fake"
	"github.com/slipway-paas/slipway/services/node-agent/runtime/runtimetest"
)

func TestContractInMemory(t *testing.T) {
	t.Parallel()
	machine := fake.NewMachine()
	const host = "registry.test"
	runtimetest.Run(t, runtimetest.Harness{
		Runtime: machine.Runtime("us"), Other: machine.Runtime("them"), RegistryHost: host,
		Push: func(_ testing.TB, repository, tag, variant string) (ref, digest string) {
			ref = host + "/" + repository + ":" + tag
			return ref, machine.Push(ref, variant)
		},
		SetRegistryDown: func(down bool) { machine.SetFaults(fake.Faults{RegistryDown: down}) },
	})
}
