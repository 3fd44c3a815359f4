//! A small company's day in about half a minute: a simulated Harvest, a private PostgreSQL and the real daemon in one
//! process. Events print as they land in the outbox, then the tables.
//!
//! `cargo run --release --example demo`, or with `-- --keep` to stay up and look around.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a demonstration that does not work should say so loudly"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim, UserId};
use rosterd::app::{App, Exit};
use rosterd::settings::Settings;
use rosterd::store::Connections;
use rosterd::store::local::LocalPostgres;
use rosterd::telemetry;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The company as it is found: 120 people and 900 assignments.
const FOUND: i64 = 1020;

#[tokio::main]
async fn main() -> ExitCode {
    let keep = std::env::args().any(|argument| argument == "--keep");
    telemetry::init(telemetry::Format::Pretty, "warn").unwrap();
    println!("Starting a simulated Harvest (120 people, 900 assignments) and a private PostgreSQL …");
    let sim = Sim::start(Company::seeded(2026, 120, 900), Options::default()).await.unwrap();
    let directory = tempfile::Builder::new().prefix("rosterd-demo-").tempdir().unwrap();
    let postgres = match LocalPostgres::start(&directory.path().join("postgres")).await {
        Ok(postgres) => postgres,
        Err(error) => {
            eprintln!("{error}");
            return Exit::Settings.into();
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
        println!("\nThat was the day, in {:.0} s. The mirror now:", began.elapsed().as_secs_f32());
        print_tables(&pool, &sim).await;
        if keep {
            println!("\nStill running; Ctrl-C ends it.");
            println!("  Look into the database:    {}", postgres.psql_hint());
            println!("  Change something, and see its event here within a second:");
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

/// As somebody would set up the daemon, but for the pace of the day.
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

/// What happens in the company. The daemon only ever sees it by polling.
async fn day(sim: &Sim, printed: &AtomicI64) {
    until(printed, FOUND).await;
    let people = sim.user_ids();
    let project = sim.new_project("Harbour extension", "HX");

    act(printed, "08:55  two people are hired and staffed on a new project", || {
        for (first, last) in [("Ada", "Nkemelu"), ("Jonas", "Weber")] {
            sim.assign(sim.hire(first, last), project);
        }
        4
    })
    .await;
    act(printed, "09:40  somebody marries and takes another name", || {
        sim.rename(people[17], "Mira", "Castellanos");
        1
    })
    .await;
    act(printed, "10:15  somebody is promoted to administrator", || {
        sim.promote(people[23], "administrator");
        1
    })
    .await;
    act(printed, "11:05  another tool spends the request budget: a burst of 429s", || {
        sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(1)).times(2));
        sim.set_email(people[30], "new.address@example.com");
        1
    })
    .await;
    act(printed, "13:30  somebody leaves; Harvest archives their assignments too", || {
        let archived = assignments(sim, people[41], true);
        sim.deactivate(people[41]);
        1 + archived
    })
    .await;
    act(printed, "14:20  Harvest is down for a moment, and work goes on", || {
        sim.inject(Fault::html(503).lasting(Duration::from_millis(1500)));
        sim.edit_user(people[50], |person| person.weekly_capacity /= 2);
        1
    })
    .await;
    act(
        printed,
        "15:10  somebody is deleted: Harvest keeps no trace of it, but one is missing in its count",
        || {
            let gone = assignments(sim, people[52], false);
            sim.delete_user(people[52]);
            1 + gone
        },
    )
    .await;
    act(printed, "16:00  the new project is re-staffed: one leaves it, four join", || {
        sim.unassign(*sim.assignment_ids().last().unwrap());
        for person in &people[60..64] {
            sim.assign(*person, project);
        }
        5
    })
    .await;
    act(printed, "17:45  the day ends", || 0).await;
}

/// Prints the hour, lets something happen that makes so many events, and waits until they are printed.
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
    timeout(Duration::from_mins(2), all).await.expect("the events arrive");
}

/// How many assignments a person has.
fn assignments(sim: &Sim, person: UserId, active_only: bool) -> i64 {
    let all = sim.assignments_json();
    let theirs = all
        .iter()
        .filter(|held| held["user"]["id"] == person.0 && (!active_only || held["is_active"] == true));
    i64::try_from(theirs.count()).unwrap()
}

/// A consumer as simple as they come: `WHERE seq > mine ORDER BY seq`.
async fn print_events(pool: Connections, printed: Arc<AtomicI64>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let events: Vec<(i64, String, Value)> =
            sqlx::query_as("SELECT seq, type, payload FROM roster.outbox WHERE seq > $1 ORDER BY seq")
                .bind(printed.load(Ordering::Relaxed))
                .fetch_all(&pool)
                .await
                .unwrap_or_default();
        for (seq, r#type, payload) in events {
            // The first thousand are the company as it was found.
            if seq > FOUND {
                println!("  #{seq:<5} {:<28} {:>10}  {}", r#type, payload["id"], changes(&payload));
            } else if seq % 300 == 0 || seq == FOUND {
                println!("  … {seq} people and assignments have arrived");
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

async fn print_tables(pool: &Connections, sim: &Sim) {
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
        sim.most_in_any_window(Duration::from_secs(15))
    );
}
