package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/slipway-paas/slipway/e2e/stack"
	"github.com/slipway-paas/slipway/libs/eventstore"
	"github.com/slipway-paas/slipway/libs/projection"
	"github.com/slipway-paas/slipway/libs/subjects"
)

const projected = 20_000

// readSection measures a projection to PostgreSQL beside reading the same stream
// and doing nothing.
func (l *logUnderTest) readSection(ctx context.Context) (err error) {
	if err := l.fill(ctx); err != nil {
		return err
	}
	url, closeIt, err := stack.Database(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeIt()) }()
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return fmt.Errorf("connect to the database: %w", err)
	}
	defer pool.Close()
	ours, err := l.projectRate(ctx, pool)
	if err != nil {
		return err
	}
	raw, err := l.consumeRate(ctx)
	if err != nil {
		return err
	}
	compare("events projected to PostgreSQL", fmt.Sprintf("%.0f/s", ours),
		fmt.Sprintf("raw JetStream consume %.0f/s", raw), ratio(ours, raw), "beside it")
	return nil
}

// fill adds events until there are as many as are measured.
func (l *logUnderTest) fill(ctx context.Context) error {
	for i := appends; i < projected; i++ {
		a := deploymentOf(i)
		if _, err := l.store.Record(ctx, eventstore.Event{
			Aggregate: a, ID: fmt.Sprint("fill-", i), Payload: fact(i), Time: time.Now(), Source: "bench",
		}); err != nil {
			return fmt.Errorf("record event %d: %w", i, err)
		}
	}
	return nil
}

func (l *logUnderTest) projectRate(ctx context.Context, pool *pgxpool.Pool) (float64, error) {
	runner, err := projection.New(pool, l.store, projection.Projection{
		Name: "bench", Version: 1, Filters: []string{subjects.KindFilter(subjects.Deployment)},
		Tables: `CREATE TABLE seen (sequence bigint PRIMARY KEY, deployment text NOT NULL, type text NOT NULL, at timestamptz NOT NULL)`,
		Apply: func(ctx context.Context, tx pgx.Tx, events []eventstore.Recorded) error {
			batch := &pgx.Batch{}
			for _, e := range events {
				batch.Queue(`INSERT INTO seen VALUES ($1, $2, $3, $4)`, int64(e.Sequence), e.Aggregate.ID, e.Type(), e.Time)
			}
			return tx.SendBatch(ctx, batch).Close()
		},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return 0, err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- runner.Run(running) }()
	err = runner.WaitFor(ctx, projected)
	took := time.Since(began)
	stop()
	return projected / took.Seconds(), errors.Join(err, <-ended)
}

func (l *logUnderTest) consumeRate(ctx context.Context) (float64, error) {
	consumer, err := l.js.OrderedConsumer(ctx, subjects.StreamEvents, jetstream.OrderedConsumerConfig{})
	if err != nil {
		return 0, fmt.Errorf("make a consumer: %w", err)
	}
	began := time.Now()
	messages, err := consumer.Messages()
	if err != nil {
		return 0, fmt.Errorf("consume: %w", err)
	}
	defer messages.Stop()
	for range projected {
		if _, err := messages.Next(jetstream.NextContext(ctx)); err != nil {
			return 0, fmt.Errorf("consume: %w", err)
		}
	}
	return projected / time.Since(began).Seconds(), nil
}
