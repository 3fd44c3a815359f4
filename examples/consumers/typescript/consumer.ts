// Keeps the table review.people equal to the users of the mirror, event by event.
//
//   npm install && npx tsc && DATABASE_URL=postgres://… node consumer.js
//
// An event and its acknowledgement are one transaction, so a crash loses no event and applies none twice.

import { Client } from "pg";

interface User {
  email?: string | null;
  is_active: boolean;
}

// pg returns a bigint as a string: pass it back unchanged.
interface Event {
  seq: string;
  aggregatetype: string;
  account_id: string;
  record_id: string;
  version: string;
  payload: { before: User | null; after: User | null };
}

const name = process.env.CONSUMER ?? "people-copy";
const db = new Client({ connectionString: process.env.DATABASE_URL });
let wake = () => {};
db.on("notification", () => wake());

const table = `
  CREATE TABLE IF NOT EXISTS review.people (
    account_id bigint, user_id bigint, version bigint NOT NULL, email text, is_active bool NOT NULL,
    PRIMARY KEY (account_id, user_id))`;
const copy = `
  INSERT INTO review.people SELECT account_id, id, version, email, is_active FROM directory.users
  UNION ALL SELECT account_id, id, version, email, false FROM directory.deleted_users`;
const apply = `
  INSERT INTO review.people AS mine VALUES ($1, $2, $3, $4, $5)
  ON CONFLICT (account_id, user_id) DO UPDATE
     SET version = excluded.version, email = excluded.email, is_active = excluded.is_active
   WHERE mine.version < excluded.version`;

async function transaction<T>(begin: string, work: () => Promise<T>): Promise<T> {
  await db.query(begin);
  try {
    const result = await work();
    await db.query("COMMIT");
    return result;
  } catch (error) {
    await db.query("ROLLBACK");
    throw error;
  }
}

/** Copies the current state, and begins after the last event that it includes. */
async function load(): Promise<void> {
  await transaction("BEGIN ISOLATION LEVEL REPEATABLE READ", async () => {
    await db.query("DELETE FROM review.people");
    await db.query(copy);
    await db.query("SELECT directory.outbox_start($1, seq) FROM directory.snapshot_position()", [name]);
  });
  console.log("loaded");
}

/** Applies and acknowledges the next events in one transaction. Returns their number. */
async function applyBatch(): Promise<number> {
  return transaction("BEGIN", async () => {
    const { rows } = await db.query<Event>("SELECT * FROM directory.outbox_fetch($1, 500)", [name]);
    for (const event of rows.filter((event) => event.aggregatetype === "user")) {
      // A deleted user has no state after the event. The copy keeps the last values, as the mirror does.
      const { before, after } = event.payload;
      const state = after ?? { ...before, is_active: false };
      await db.query(apply, [event.account_id, event.record_id, event.version, state.email, state.is_active]);
    }
    if (rows.length > 0) {
      await db.query("SELECT directory.outbox_ack($1, $2)", [name, rows[rows.length - 1].seq]);
    }
    return rows.length;
  });
}

async function main(): Promise<void> {
  await db.connect();
  await db.query(table);
  await db.query("LISTEN roster_outbox");
  const known = await db.query("SELECT FROM directory.consumers WHERE name = $1", [name]);
  if (known.rowCount === 0) await load();
  for (;;) {
    // Made before the events are fetched, so that no notification is missed. One can be lost, so look every ten seconds.
    const notified = new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 10_000);
      wake = () => (clearTimeout(timer), resolve());
    });
    try {
      const applied = await applyBatch();
      if (applied > 0) {
        console.log("applied", applied);
        wake();
      }
    } catch (error) {
      // Events were lost, for example by a restore.
      if ((error as { code?: string }).code !== "RS001") throw error;
      await load();
      wake();
    }
    await notified;
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
