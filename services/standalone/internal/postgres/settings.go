package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
)

// longestSocketDir leaves room for /.s.PGSQL.5432.lock in a unix socket's 107 bytes.
const longestSocketDir = 85

// socketDir is beside the data, or a short path of its own where that is too long
// for a unix socket.
func socketDir(dir string) string {
	if beside := filepath.Join(dir, "socket"); len(beside) <= longestSocketDir {
		return beside
	}
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "slipway-pg-"+hex.EncodeToString(sum[:6]))
}

// settings are the server's: no network, little memory, every commit on disk.
func settings(data, sockets string) []string {
	args := []string{"-D", data}
	for _, setting := range []string{
		"listen_addresses=",
		"unix_socket_directories=" + sockets,
		"unix_socket_permissions=0700",
		"port=5432",
		"max_connections=60",
		"shared_buffers=16MB",
		"work_mem=2MB",
		"maintenance_work_mem=16MB",
		"wal_buffers=1MB",
		"temp_buffers=1MB",
		"max_wal_size=256MB",
		"min_wal_size=32MB",
		"wal_level=minimal",
		"max_wal_senders=0",
		"max_replication_slots=0",
		"max_parallel_workers=0",
		"max_parallel_workers_per_gather=0",
		"max_logical_replication_workers=0",
		"autovacuum_max_workers=1",
		"jit=off",
		"fsync=on",
		"synchronous_commit=on",
		"full_page_writes=on",
		"logging_collector=off",
		"log_destination=stderr",
		"log_line_prefix=",
		"log_min_messages=warning",
	} {
		args = append(args, "-c", setting)
	}
	return args
}

// environment is all that PostgreSQL gets of ours: its messages must be in English,
// and no PG* variable may change what it does.
func environment() []string {
	return []string{"PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC"}
}
