package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/slipway-paas/slipway/libs/backup"
	"github.com/slipway-paas/slipway/libs/datadir"
	"github.com/slipway-paas/slipway/libs/seal"
)

// backupCommands are the only ones that do not speak to the gateway: a backup holds
// every key of the platform, so it is for those who may read its data directory.
func backupCommands(c *command) []*cobra.Command {
	return []*cobra.Command{c.backup(), c.restore()}
}

// place is what both commands are told about the platform's machine.
type place struct {
	dir, nats, key, passphrase string
}

func (p *place) flags(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&p.dir, "data-dir", string(datadir.Default()), "the platform's data directory")
	set.StringVar(&p.nats, "nats", "", "NATS servers of your own, nats://host:port, several with commas; found by the data directory when empty")
	set.StringVar(&p.key, "nats-key", "", "file with the platform's NATS key; the data directory's when empty")
	set.StringVar(&p.passphrase, "passphrase-file", "", "file with the passphrase of the backup; - reads it from standard input")
}

func (p *place) at() backup.At { return backup.At{NATS: p.nats, Key: p.key} }

// secret reads the passphrase; empty when none was asked for.
func (p *place) secret(stdin io.Reader) (string, error) {
	if p.passphrase == "" {
		return "", nil
	}
	in := stdin
	if p.passphrase != "-" {
		file, err := os.Open(p.passphrase)
		if err != nil {
			return "", usage("The passphrase cannot be read: %w.", err)
		}
		defer file.Close()
		in = file
	}
	line, err := bufio.NewReader(io.LimitReader(in, 4<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", usage("The passphrase cannot be read: %w.", err)
	}
	line = strings.TrimRight(line, "\r\n")
	if len(line) < backup.MinPassphrase {
		return "", usage("The passphrase is too short: take at least %d characters, for it protects every key of the platform.", backup.MinPassphrase)
	}
	return line, nil
}

func (c *command) backup() *cobra.Command {
	var p place
	var withoutImages, noMaster bool
	cmd := &cobra.Command{
		Use: "backup FILE", Short: "Back the platform up, while it runs",
		Long: `Back the platform up into FILE, while commands flow: every event with its sequence, the data
keys, the master key, the keys to NATS, the credentials, the settings and the pushed images.

Run it on the platform's machine, as the user who may read its data directory. It is called
good when it has been restored into a server of its own and read back: that needs room for the
log twice beside FILE.

FILE holds keys: whoever can read it can read every tenant's secrets and act as the platform.
It is made readable by you alone. Give --passphrase-file to encrypt it (age), above all before
it leaves this machine, and keep the passphrase elsewhere: without it the backup is worth nothing.`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(cmd *cobra.Command, args []string) error {
			passphrase, err := p.secret(c.env.Stdin)
			if err != nil {
				return err
			}
			log := c.partsLog()
			at := p.at()
			at.NoMasterKey = noMaster
			source, err := backup.Open(p.dir, at, log)
			if err != nil {
				return backupFailed(err)
			}
			defer source.Close()
			m, err := backup.Create(cmd.Context(), args[0], source, backup.Options{
				Passphrase: passphrase, Images: !withoutImages, Version: c.env.Version, Begin: c.begin, Log: log,
			})
			if err != nil {
				return backupFailed(err)
			}
			if passphrase == "" {
				fmt.Fprintf(c.env.Stderr, "Warning: %s is not encrypted and holds every key of the platform. Who can read it can read every tenant's secrets.\n", args[0])
			}
			return c.tellBackup(args[0], m, "backed up and proved by restoring it")
		}),
	}
	p.flags(cmd)
	cmd.Flags().BoolVar(&withoutImages, "without-images", false, "leave out what was pushed to the built-in registry")
	cmd.Flags().BoolVar(&noMaster, "without-master-key", false, "the platform has its master key from the environment: keep it yourself, without it the backup's secrets stay sealed")
	return cmd
}

func (c *command) restore() *cobra.Command {
	var p place
	var replicas int
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Restore a backup into an empty data directory",
		Long: `Restore a backup into a data directory that is empty or not there yet, then start slipwayd on it:
apps come back by themselves, with their addresses, variables and tokens. The settings of the
platform that was are in restored.yaml there: slipwayd --config DIR/restored.yaml.

Never run both the old and the restored platform for the same apps.`,
		Args: cobra.ExactArgs(1),
		RunE: c.run(func(cmd *cobra.Command, args []string) error {
			passphrase, err := p.secret(c.env.Stdin)
			if err != nil {
				return err
			}
			m, err := backup.Restore(cmd.Context(), args[0], p.dir, backup.RestoreOptions{
				Passphrase: passphrase, To: p.at(), Replicas: replicas, Begin: c.begin, Log: c.partsLog(),
			})
			if errors.Is(err, backup.ErrDamaged) {
				return fail(ExitFailed, "%w. Nothing was restored: take another copy of it.", err)
			}
			if err != nil {
				return backupFailed(err)
			}
			if err := c.tellBackup(args[0], m, "restored into "+p.dir); err != nil || c.json || p.nats != "" {
				return err
			}
			// The platform of before may have had a directory without settings.
			if restored := datadir.Dir(p.dir).Restored(); exists(restored) {
				_, err = fmt.Fprintf(c.env.Stdout, "Start it with: slipwayd --config %s\n", restored)
			}
			return err
		}),
	}
	p.flags(cmd)
	cmd.Flags().IntVar(&replicas, "nats-replicas", 1, "servers that keep each stream, with --nats: 3 in a cluster")
	return cmd
}

// begin tells people what takes its time.
func (c *command) begin(part string) { fmt.Fprintln(c.env.Stderr, part+" …") }

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// partsLog is for what the libraries below have to say.
func (c *command) partsLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(c.env.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

func (c *command) tellBackup(file string, m backup.Manifest, done string) error {
	if c.json {
		return c.printJSON(map[string]any{"file": file, "made": m.Made, "version": m.Version, "events": m.Events(), "images": m.Images})
	}
	images := "with images"
	if !m.Images {
		images = "without images"
	}
	_, err := fmt.Fprintf(c.env.Stdout, "%s: %d events of %s, %s, %s.\n", file, m.Events(), m.Made.Format(time.RFC3339), images, done)
	return err
}

func backupFailed(err error) error {
	switch {
	case errors.Is(err, backup.ErrExists), errors.Is(err, backup.ErrNotEmpty), errors.Is(err, datadir.ErrInUse):
		return usage("%w.", err)
	case errors.Is(err, seal.ErrHeld):
		return fail(ExitFailed, "%w; wait until it is done.", err)
	case errors.Is(err, backup.ErrPassphrase):
		return fail(ExitUnauthorized, "%w. Give it with --passphrase-file.", err)
	case errors.Is(err, os.ErrPermission):
		return fail(ExitUnauthorized, "%w. Run this as the user that the platform runs as.", err)
	default:
		return err
	}
}
