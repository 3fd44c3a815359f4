//! A small company's day in about half a minute: a simulated Harvest, a private PostgreSQL and the daemon in one
//! process. Prints events as they are written to the outbox, then the tables.
//!
//! `cargo run --release --example demo`; with `-- --keep` it keeps running.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a demo that fails should panic")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim, UserId};
use rosterd::app::{App, Failure, development_options};
use rosterd::settings::Settings;
use rosterd::store::Pool;
use rosterd::store::local::LocalPostgres;
use rosterd::telemetry;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Number of events of the first read: 120 users and 900 assignments.
const FOUND: i64 = 1020;

#[tokio::main]
async fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    telemetry::init(telemetry::Format::Pretty, "warn").unwrap();
    println!("Starting a simulated Harvest (120 users, 900 assignments) and a private PostgreSQL …");
    let sim = Sim::start(Company::seeded(2026, 120, 900), Options::default()).await.unwrap();
    let directory = tempfile::Builder::new().prefix("rosterd-demo-").tempdir().unwrap();
    let programs = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/postgresql");
    let options = development_options(&directory.path().join("postgres"), programs).unwrap();
    let postgres = match LocalPostgres::start(&options).await {
        Ok(postgres) => postgres,
        Err(error) => {
            let failure = Failure::from(error);
            eprintln!("{failure}");
            return failure.exit.into();
        }
    };
    let app = App::open(settings(&sim, &postgres, &directory.path().join("unused")), Duration::from_secs(10))
        .await
        .unwrap();

    let stop = CancellationToken::new();
    let pool = app.store.pool().clone();
    let story = async {
        let printed = Arc::new(AtomicI64::new(0));
        let following = tokio::spawn(print_events(pool.clone(), printed.clone(), stop.clone()));
        let began = Instant::now();
        day(&sim, &printed).await;
        println!("\nThe day took {:.0} s. The mirror now:", began.elapsed().as_secs_f32());
        print_tables(&pool, &sim).await;
        if keep {
            println!("\nStill running; press Ctrl-C to stop.");
            println!("  Open the database:    {}", postgres.psql_hint());
            println!("  Change a user; its event appears here within a second:");
            println!(
                "    curl -X PATCH -H 'Authorization: Bearer {}' -H 'Harvest-Account-Id: {}' \\\n         \
                 -H 'Content-Type: application/json' -d '{{\"last_name\": \"Lovelace\"}}' '{}/users/{}'",
                sim.token(),
                sim.account_id(),
                sim.base_url(),
                sim.user_ids()[1],
            );
            tokio::signal::ctrl_c().await.unwrap();
        }
        stop.cancel();
        following.await.unwrap();
    };
    let daemon = {
        let mut daemon = std::pin::pin!(app.daemon(stop.clone()));
        tokio::select! {
            ended = &mut daemon => ended,
            () = story => daemon.await,
        }
    };
    app.close().await;
    postgres.stop().await.unwrap();
    match daemon {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("rosterd: {failure}");
            failure.exit.into()
        }
    }
}

/// Settings as in production, except for the short poll interval.
fn settings(sim: &Sim, postgres: &LocalPostgres, data_dir: &Path) -> Settings {
    let environment = [
        ("DATABASE_URL", postgres.url().expose_secret().to_owned()),
        ("HARVEST_BASE_URL", sim.base_url().to_owned()),
        ("HARVEST_ACCOUNT_ID", sim.account_id().to_string()),
        ("HARVEST_ACCESS_TOKEN", sim.token()),
        ("ROSTERD__DATABASE__DATA_DIR", data_dir.display().to_string()),
        ("ROSTERD__SYNC__POLL_INTERVAL", "1s".to_owned()),
        ("ROSTERD__HTTP__LISTEN", "127.0.0.1:0".to_owned()),
    ];
    let environment: BTreeMap<String, String> =
        environment.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Settings::load(None, &environment).unwrap()
}

/// The changes of the day. The daemon sees them only by polling.
async fn day(sim: &Sim, printed: &AtomicI64) {
    until(printed, FOUND).await;
    let people = sim.user_ids();
    let project = sim.new_project("Harbour extension", "HX");

    act(printed, "08:55  two users are hired and assigned to a new project", || {
        for (first, last) in [("Ada", "Nkemelu"), ("Jonas", "Weber")] {
            sim.assign(sim.create_user(first, last), project);
        }
        4
    })
    .await;
    act(printed, "09:40  a user changes their name", || {
        sim.rename(people[17], "Mira", "Castellanos");
        1
    })
    .await;
    act(printed, "10:15  a user becomes an administrator", || {
        sim.promote(people[23], "administrator");
        1
    })
    .await;
    act(printed, "11:05  another tool uses up the rate limit: Harvest returns 429", || {
        sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(1)).times(2));
        sim.set_email(people[30], "new.address@example.com");
        1
    })
    .await;
    act(printed, "13:30  a user is archived; Harvest archives their assignments too", || {
        let archived = assignments(sim, people[41], true);
        sim.archive_user(people[41]);
        1 + archived
    })
    .await;
    act(printed, "14:20  Harvest is unavailable for 1.5 seconds while a user changes", || {
        sim.inject(Fault::html(503).for_duration(Duration::from_millis(1500)));
        sim.edit_user(people[50], |person| person.weekly_capacity /= 2);
        1
    })
    .await;
    act(printed, "15:10  a user is deleted: Harvest only shows a smaller total, and 404 by id", || {
        let gone = assignments(sim, people[52], false);
        sim.delete_user(people[52]);
        1 + gone
    })
    .await;
    act(printed, "16:00  one user leaves the new project, four join it", || {
        sim.archive_assignment(*sim.assignment_ids().last().unwrap());
        for person in &people[60..64] {
            sim.assign(*person, project);
        }
        5
    })
    .await;
    act(printed, "17:45  the day ends", || 0).await;
}

/// Prints the time, makes a change, and waits until all its events are printed. `happen` returns their number.
async fn act(printed: &AtomicI64, what: &str, happen: impl FnOnce() -> i64) {
    sleep(Duration::from_secs(1)).await;
    println!("\n{what}");
    let events = printed.load(Ordering::Relaxed) + happen();
    until(printed, events).await;
}

async fn until(printed: &AtomicI64, events: i64) {
    let all = async {
        while printed.load(Ordering::Relaxed) < events {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_mins(2), all).await.expect("all events arrive within two minutes");
}

/// Number of a user's assignments.
fn assignments(sim: &Sim, person: UserId, active_only: bool) -> i64 {
    let all = sim.assignments_json();
    let theirs = all
        .iter()
        .filter(|held| held["user"]["id"] == person.0 && (!active_only || held["is_active"] == true));
    i64::try_from(theirs.count()).unwrap()
}

/// A minimal consumer: `WHERE seq > mine ORDER BY seq`.
async fn print_events(pool: Pool, printed: Arc<AtomicI64>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let events: Vec<(i64, String, Value)> =
            sqlx::query_as("SELECT seq, type, payload FROM roster.outbox WHERE seq > $1 ORDER BY seq")
                .bind(printed.load(Ordering::Relaxed))
                .fetch_all(&pool)
                .await
                .unwrap_or_default();
        for (seq, r#type, payload) in events {
            // Events of the first read are summarised.
            if seq > FOUND {
                println!("  #{seq:<5} {:<28} {:>10}  {}", r#type, payload["id"], changes(&payload));
            } else if seq % 300 == 0 || seq == FOUND {
                println!("  … {seq} users and assignments mirrored");
            }
            printed.store(seq, Ordering::Relaxed);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

fn changes(payload: &Value) -> String {
    let changed = payload["changed"].as_object().into_iter().flatten();
    changed
        .filter(|(field, _)| *field != "permissions_claims")
        .map(|(field, change)| format!("{field}: {} → {}", change["from"], change["to"]))
        .collect::<Vec<_>>()
        .join(", ")
}

async fn print_tables(pool: &Pool, sim: &Sim) {
    let counts = "SELECT 'roster.' || name, total, active, inactive FROM (
            SELECT 'users' AS name, count(*) AS total, count(*) FILTER (WHERE is_active) AS active,
                   count(*) FILTER (WHERE NOT is_active) AS inactive FROM roster.users
            UNION ALL
            SELECT 'user_assignments', count(*), count(*) FILTER (WHERE is_active),
                   count(*) FILTER (WHERE NOT is_active) FROM roster.user_assignments) AS t";
    let counts: Vec<(String, i64, i64, i64)> = sqlx::query_as(counts).fetch_all(pool).await.unwrap();
    for (table, total, active, inactive) in counts {
        println!("  {table:<24} {total:>5} rows   {active:>5} active   {inactive:>4} inactive");
    }
    let events = "SELECT type, count(*) FROM roster.outbox GROUP BY type ORDER BY type";
    let events: Vec<(String, i64)> = sqlx::query_as(events).fetch_all(pool).await.unwrap();
    for (r#type, count) in events {
        println!("  {type:<28} {count:>5} events");
    }
    let team = "SELECT u.first_name || ' ' || u.last_name, a.is_active
                  FROM roster.user_assignments AS a
                  JOIN roster.projects AS p ON (p.account_id, p.id) = (a.account_id, a.project_id)
                  JOIN roster.users AS u ON (u.account_id, u.id) = (a.account_id, a.user_id)
                 WHERE p.code = 'HX' ORDER BY a.id";
    let team: Vec<(String, bool)> = sqlx::query_as(team).fetch_all(pool).await.unwrap();
    println!("  Harbour extension (HX):");
    for (name, active) in team {
        println!("    {name}{}", if active { "" } else { " (left the project)" });
    }
    println!(
        "Harvest answered {} requests, never more than {} in any 15 s.",
        sim.requests().len(),
        sim.max_requests_in_window(Duration::from_secs(15))
    );
}
