//! A small company's day in twenty seconds: a simulated Harvest, a private PostgreSQL and the real daemon in one
//! process. Events print as they land in the outbox, then the tables.
//!
//! `cargo run --release --example demo`, or with `-- --keep` to stay up and look around.

#![expect(clippy::unwrap_used, reason = "a demonstration that does not work should say so loudly")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use harvest_sim::{Company, Fault, Options, RetryAfter, Sim};
use rosterd::app::{App, Exit};
use rosterd::settings::Settings;
use rosterd::store::Connections;
use rosterd::store::local::LocalPostgres;
use rosterd::telemetry;
use secrecy::ExposeSecret;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

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
        let printer = tokio::spawn(print_events(pool.clone(), stop.clone()));
        let began = Instant::now();
        day(&sim, &pool).await;
        println!("\nThat was the day, in {:.0} s. The mirror now:", began.elapsed().as_secs_f32());
        print_tables(&pool, &sim).await;
        if keep {
            println!("\nStill running; Ctrl-C ends it.");
            println!("  the database:  {}", postgres.psql_hint());
            println!(
                "  Harvest:       {} (account {}, token {})",
                sim.base_url(),
                sim.account_id(),
                sim.token()
            );
            tokio::signal::ctrl_c().await.unwrap();
        }
        stop.cancel();
        printer.await.unwrap();
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
async fn day(sim: &Sim, pool: &Connections) {
    wait_for_events(pool, 1020).await;
    let people = sim.user_ids();
    let project = sim.new_project("Harbour extension", "HX");

    act("08:55  two people are hired and staffed on a new project").await;
    for (first, last) in [("Ada", "Nkemelu"), ("Jonas", "Weber")] {
        sim.assign(sim.hire(first, last), project);
    }
    act("09:40  somebody marries and takes another name").await;
    sim.rename(people[17], "Mira", "Castellanos");
    act("10:15  somebody is promoted to administrator").await;
    sim.promote(people[23], "administrator");
    act("11:05  another tool spends the request budget: a burst of 429s").await;
    sim.inject(Fault::html(429).retry_after(RetryAfter::Seconds(1)).times(2));
    sim.set_email(people[30], "new.address@example.com");
    act("13:30  somebody leaves; Harvest archives their assignments too").await;
    sim.deactivate(people[41]);
    act("14:20  Harvest is down for a moment, and work goes on").await;
    sim.inject(Fault::html(503).lasting(Duration::from_millis(1500)));
    sim.edit_user(people[50], |person| person.weekly_capacity = 20 * 3600);
    act("15:10  somebody is deleted: Harvest keeps no trace of it, but one is missing in its count").await;
    sim.delete_user(people[52]);
    act("16:00  the new project is re-staffed: one leaves it, four join").await;
    sim.unassign(*sim.assignment_ids().last().unwrap());
    for person in &people[60..64] {
        sim.assign(*person, project);
    }
    act("17:45  the day ends").await;
    sleep(Duration::from_secs(3)).await;
}

async fn act(what: &str) {
    sleep(Duration::from_millis(2200)).await;
    println!("\n{what}");
}

async fn wait_for_events(pool: &Connections, count: i64) {
    let query = "SELECT seq FROM roster.outbox_head";
    while sqlx::query_scalar::<_, i64>(query).fetch_one(pool).await.unwrap_or(0) < count {
        sleep(Duration::from_millis(50)).await;
    }
}

/// A consumer as simple as they come: `WHERE seq > mine ORDER BY seq`.
async fn print_events(pool: Connections, stop: CancellationToken) {
    let (mut mine, mut arrived): (i64, u64) = (0, 0);
    while !stop.is_cancelled() {
        let events: Vec<(i64, String, Value)> =
            sqlx::query_as("SELECT seq, type, payload FROM roster.outbox WHERE seq > $1 ORDER BY seq")
                .bind(mine)
                .fetch_all(&pool)
                .await
                .unwrap_or_default();
        for (seq, r#type, payload) in events {
            mine = seq;
            // The first thousand are the company as it was found.
            if arrived < 1020 {
                arrived += 1;
                if arrived.is_multiple_of(300) || arrived == 1020 {
                    println!("  … {arrived} people and assignments have arrived");
                }
                continue;
            }
            println!("  #{seq:<5} {:<28} {:>10}  {}", r#type, payload["id"], changes(&payload));
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
