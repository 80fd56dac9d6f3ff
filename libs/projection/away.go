package projection

import (
	"errors"
	"io"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// IsAway reports whether err, of a query outside of a projection, says that the
// database cannot be reached, was lost in the middle of an answer, did not answer in
// time or is shutting down, rather than that it refused what was asked.
func IsAway(err error) bool {
	var connection *net.OpError
	return isAway(err) ||
		errors.As(err, &connection) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, pgconn.ErrConnClosed) || pgconn.Timeout(err)
}
