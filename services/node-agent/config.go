package nodeagent

import (
	"errors"
	"fmt"
	"time"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// Config says which node this is and how it behaves. NodeID and DataDir are
// required; the zero value of everything else means the default.
type Config struct {
	NodeID string
	// DataDir keeps what must outlive the process: which images the agent pulled and
	// which containers it stopped itself.
	DataDir string
	// Host is where this node is said to be; empty means the machine's name.
	Host    string
	Version string

	// MemoryMB and CPUMillicores are what instances may use of the machine together;
	// 0 means all of it, but for ReserveMB (default 512) of memory.
	MemoryMB      uint32
	CPUMillicores uint32
	ReserveMB     uint32

	// Concurrency bounds how many containers are made, and how many images are
	// pulled, at once. Default 8.
	Concurrency int
	// Heartbeat is how often the node says that it lives. Default 2 s.
	Heartbeat time.Duration
	// Resync is how often everything is listed and compared, in case an event was
	// missed. Default 60 s; never longer than PruneAfter, for images are looked at with it.
	Resync time.Duration
	// PruneAfter is how long an image stays that nothing needs, at least MinPruneAfter;
	// it goes at the next Resync. Default 30 min.
	PruneAfter time.Duration
	// LogMaxBytes bounds each container's stored output. Default 10 MiB.
	LogMaxBytes int64
}

// MinPruneAfter is the least Config.PruneAfter: all containers are listed that often.
const MinPruneAfter = 10 * time.Second

func (c *Config) setDefaults() error {
	if !subjects.ValidToken(c.NodeID) {
		return fmt.Errorf("node id %q must be 1 to 128 letters, digits, hyphens or underscores", c.NodeID)
	}
	if c.DataDir == "" {
		return errors.New("the node-agent needs a data directory")
	}
	if c.ReserveMB == 0 {
		c.ReserveMB = 512
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 8
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{
		{&c.Heartbeat, 2 * time.Second},
		{&c.Resync, time.Minute},
		{&c.PruneAfter, 30 * time.Minute},
	} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	if c.PruneAfter < MinPruneAfter {
		return fmt.Errorf("images that nothing needs must stay for %v or longer, not %v", MinPruneAfter, c.PruneAfter)
	}
	c.Resync = min(c.Resync, c.PruneAfter)
	return nil
}
