// Package natsconn joins a process to NATS: it makes and reads the key files that
// say who it is, connects for good, starts the server that a standalone platform
// carries inside, and makes the streams and buckets that everything else expects.
package natsconn

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"syscall"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/nats-io/nats.go"

	"github.com/slipway-paas/slipway/libs/subjects"
)

// Role is what a connection may do; each has its own key.
type Role string

const (
	// RolePlatform may do everything.
	RolePlatform Role = "platform"
	// RoleNode reads what one node must run, says what it did. Each node has its own key.
	RoleNode Role = "node"
	// RoleEdge reads routes and acknowledges them.
	RoleEdge Role = "edge"
	// RoleSubscriptions is the server that outsiders connect to, which joins as a leaf
	// node: it hears of tenants' events and reads consumers of the log.
	RoleSubscriptions Role = "subscriptions"
)

// inboxPrefix keeps roles, and nodes, from reading each other's answers. node is empty
// but for RoleNode.
func (r Role) inboxPrefix(node string) string {
	switch r {
	case RoleNode:
		return subjects.NodeInbox(node)
	case RoleEdge:
		return "_INBOX_EDGE"
	default:
		return nats.InboxPrefix[:len(nats.InboxPrefix)-1]
	}
}

// Config says where to connect and as whom.
type Config struct {
	// URL is nats://host:port, or several with commas between. Ignored with Server.
	URL string
	// Server connects inside the process, without a socket, when set.
	Server *Embedded
	// SeedFile holds the role's nkey seed; empty connects without a key.
	SeedFile string
	// Role is whose inboxes to use; the empty one is RolePlatform.
	Role Role
	// Node is the node's id, with RoleNode only.
	Node string
	// Name is shown in NATS' connection list: service and node.
	Name string
	// Log gets what happens to the connection.
	Log *slog.Logger
}

const (
	// dialTimeout is for each server of a cluster: one that was cut off answers nothing.
	dialTimeout = 4 * time.Second
	// A server whose network fell silent is left after pings of 4 to 6 seconds.
	pingInterval = 2 * time.Second
	pingsMissed  = 2
	// mostAnswers is how many messages may wait for one question's asker. A question
	// for a batch of events makes a queue of that length, and there are many; the
	// client's own default is half a megabyte each time.
	mostAnswers = 1024
)

const (
	// reloads is how often a server may seem to be reading its users anew, with
	// reloadPause between: meanwhile it knows nobody, or hangs up.
	reloads     = 5
	reloadPause = 300 * time.Millisecond
)

func dial(url string, options []nats.Option) (*nats.Conn, error) {
	return backoff.Retry(context.Background(), func() (*nats.Conn, error) {
		nc, err := nats.Connect(url, options...)
		if err == nil || errors.Is(err, nats.ErrAuthorization) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET) {
			return nc, err
		}
		return nil, backoff.Permanent(err)
	}, backoff.WithBackOff(backoff.NewConstantBackOff(reloadPause)), backoff.WithMaxTries(reloads))
}

// Connect connects and stays connected: when the server goes away, it tries again,
// with the others of the URL too, until Close. The first connection must succeed
// within 4 seconds for each server. Publishes made while disconnected wait in a buffer
// of 8 MiB at most.
func Connect(c Config) (*nats.Conn, error) {
	if c.Role == RoleNode && !subjects.ValidToken(c.Node) {
		return nil, fmt.Errorf("connect to NATS as a node: %q is no node id; use 1 to 128 letters, digits, hyphens or underscores", c.Node)
	}
	log := c.Log.With("connection", c.Name)
	options := []nats.Option{
		nats.Name(c.Name),
		nats.Timeout(dialTimeout),
		nats.MaxReconnects(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(250*time.Millisecond, 250*time.Millisecond),
		nats.PingInterval(pingInterval),
		nats.MaxPingsOutstanding(pingsMissed),
		nats.ReconnectBufSize(8 << 20),
		nats.SyncQueueLen(mostAnswers),
		nats.CustomInboxPrefix(c.Role.inboxPrefix(c.Node)),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("lost NATS, connecting again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { log.Info("connected to NATS again", "url", nc.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, sub *nats.Subscription, err error) {
			subject := ""
			if sub != nil {
				subject = sub.Subject
			}
			log.Error("NATS", "error", err, "subject", subject)
		}),
	}
	if c.Server != nil {
		options = append(options, nats.InProcessServer(c.Server))
	}
	if c.SeedFile != "" {
		key, err := nats.NkeyOptionFromSeed(c.SeedFile)
		if err != nil {
			return nil, fmt.Errorf("read the NATS key %s: %w", c.SeedFile, err)
		}
		options = append(options, key)
	}
	nc, err := dial(c.URL, options)
	if errors.Is(err, nats.ErrAuthorization) {
		return nil, fmt.Errorf("connect to NATS at %s: the server does not know the key %q: %w", c.URL, c.SeedFile, err)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", c.URL, err)
	}
	return nc, nil
}
