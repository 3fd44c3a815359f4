// Keeps the table review.people equal to the users of the mirror, event by event.
//
//	go mod tidy && DATABASE_URL=postgres://… go run .
//
// An event and its acknowledgement are one transaction, so a crash loses no event and applies none twice.
package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/lib/pq"
)

const (
	table = `
	CREATE TABLE IF NOT EXISTS review.people (
	    account_id bigint, user_id bigint, version bigint NOT NULL, email text, is_active bool NOT NULL,
	    PRIMARY KEY (account_id, user_id))`
	copyUsers = `
	INSERT INTO review.people SELECT account_id, id, version, email, is_active FROM directory.users
	UNION ALL SELECT account_id, id, version, email, false FROM directory.deleted_users`
	apply = `
	INSERT INTO review.people AS mine VALUES ($1, $2, $3, $4, $5)
	ON CONFLICT (account_id, user_id) DO UPDATE
	   SET version = excluded.version, email = excluded.email, is_active = excluded.is_active
	 WHERE mine.version < excluded.version`
	fetch = `SELECT seq, aggregatetype, account_id, record_id, version, payload FROM directory.outbox_fetch($1, 500)`
)

type user struct {
	Email    *string `json:"email"`
	IsActive bool    `json:"is_active"`
}

type event struct {
	seq, account, record, version int64
	kind                          string
	payload                       []byte
}

// inTransaction commits if work succeeds.
func inTransaction(db *sql.DB, options *sql.TxOptions, work func(*sql.Tx) error) error {
	tx, err := db.BeginTx(context.Background(), options)
	if err != nil {
		return err
	}
	defer tx.Rollback() // Does nothing after a commit.
	if err := work(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// load copies the current state, and begins after the last event that it includes.
func load(db *sql.DB, name string) error {
	err := inTransaction(db, &sql.TxOptions{Isolation: sql.LevelRepeatableRead}, func(tx *sql.Tx) error {
		if _, err := tx.Exec("DELETE FROM review.people"); err != nil {
			return err
		}
		if _, err := tx.Exec(copyUsers); err != nil {
			return err
		}
		_, err := tx.Exec("SELECT directory.outbox_start($1, seq) FROM directory.snapshot_position()", name)
		return err
	})
	if err == nil {
		fmt.Println("loaded")
	}
	return err
}

func fetchEvents(tx *sql.Tx, name string) ([]event, error) {
	rows, err := tx.Query(fetch, name)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var events []event
	for rows.Next() {
		var next event
		if err := rows.Scan(&next.seq, &next.kind, &next.account, &next.record, &next.version, &next.payload); err != nil {
			return nil, err
		}
		events = append(events, next)
	}
	return events, rows.Err()
}

func applyEvent(tx *sql.Tx, next event) error {
	if next.kind != "user" {
		return nil
	}
	var payload struct{ Before, After *user }
	if err := json.Unmarshal(next.payload, &payload); err != nil {
		return err
	}
	// A deleted user has no state after the event. The copy keeps the last values, as the mirror does.
	var state user
	if payload.After != nil {
		state = *payload.After
	} else if payload.Before != nil {
		state = user{Email: payload.Before.Email}
	}
	_, err := tx.Exec(apply, next.account, next.record, next.version, state.Email, state.IsActive)
	return err
}

// applyBatch applies and acknowledges the next events in one transaction. It returns their number.
func applyBatch(db *sql.DB, name string) (applied int, err error) {
	err = inTransaction(db, nil, func(tx *sql.Tx) error {
		events, err := fetchEvents(tx, name)
		if err != nil || len(events) == 0 {
			return err
		}
		for _, next := range events {
			if err := applyEvent(tx, next); err != nil {
				return err
			}
		}
		applied = len(events)
		_, err = tx.Exec("SELECT directory.outbox_ack($1, $2)", name, events[len(events)-1].seq)
		return err
	})
	return applied, err
}

func run(url, name string) error {
	db, err := sql.Open("postgres", url)
	if err != nil {
		return err
	}
	if _, err := db.Exec(table); err != nil {
		return err
	}
	listener := pq.NewListener(url, time.Second, time.Minute, nil)
	if err := listener.Listen("roster_outbox"); err != nil {
		return err
	}
	var known bool
	registered := "SELECT EXISTS (SELECT FROM directory.consumers WHERE name = $1)"
	if err := db.QueryRow(registered, name).Scan(&known); err != nil {
		return err
	}
	if !known {
		if err := load(db, name); err != nil {
			return err
		}
	}
	for {
		applied, err := applyBatch(db, name)
		var refused *pq.Error
		switch {
		case errors.As(err, &refused) && refused.Code == "RS001": // Events were lost, for example by a restore.
			if err := load(db, name); err != nil {
				return err
			}
		case err != nil:
			return err
		case applied > 0:
			fmt.Println("applied", applied)
		default:
			select { // A notification can be lost, so look every ten seconds anyway.
			case <-listener.Notify:
			case <-time.After(10 * time.Second):
			}
		}
	}
}

func main() {
	name := os.Getenv("CONSUMER")
	if name == "" {
		name = "people-copy"
	}
	log.Fatal(run(os.Getenv("DATABASE_URL"), name))
}
