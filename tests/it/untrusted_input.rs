//! Properties of the functions that parse untrusted input. The fuzz targets in `fuzz/` use the same functions.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use chrono::{DateTime, TimeDelta};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use rosterd::harvest::envelope::{Envelope, next_url};
use rosterd::harvest::rate_limit::{Priority, RateLimiter, RateLimits};
use rosterd::harvest::{Decode, wire};
use rosterd::outbound::{retry_after, server_time};
use rosterd::roster::event::EventContext;
use rosterd::roster::watermark::{ReadStart, Watermark};
use rosterd::roster::{
    AccountId, Assignment, BillableRate, Change, CostRate, Event, Fetched, MirrorRow, Resource, User, plan,
};
use rosterd::settings::Settings;
use serde_json::value::RawValue;
use url::Url;
use uuid::Uuid;

/// Part of each secret, which no message may contain. No name of a temporary file contains it by chance.
const CANARY: &str = "zx~q";

#[track_caller]
fn expect_no_secret(message: &str) {
    assert!(!message.contains(CANARY), "{message}");
}

/// A page of each list, and its records.
pub fn page(body: &[u8]) {
    for list in [Resource::Users, Resource::Assignments, Resource::BillableRates, Resource::CostRates] {
        let Envelope { records, next_link, .. } = match Envelope::parse(body, list.name()) {
            Ok(envelope) => envelope,
            Err(problem) => {
                expect_no_secret(&problem);
                continue;
            }
        };
        if let Some(next) = next_link {
            link(next.as_bytes());
        }
        for raw in &records {
            match list {
                Resource::Users => record::<User>(raw),
                Resource::Assignments => record::<Assignment>(raw),
                Resource::BillableRates => record::<BillableRate>(raw),
                Resource::CostRates => record::<CostRate>(raw),
            }
        }
    }
}

fn record<R: Decode>(raw: &RawValue) {
    for with_pay in [true, false] {
        match wire::read::<R>(raw, with_pay, &"".into()) {
            Ok(read) => {
                expect_no_pay(&read.raw, with_pay);
                expect_same(&read, with_pay);
            }
            Err(rejected) => {
                expect_no_secret(&format!("{rejected:?}"));
                assert!(rejected.id.is_none_or(|id| id > 0));
                expect_no_pay(&rejected.raw, with_pay);
            }
        }
    }
}

fn expect_no_pay(raw: &RawValue, with_pay: bool) {
    let object: BTreeMap<String, &RawValue> = serde_json::from_str(raw.get()).unwrap_or_default();
    for key in ["default_hourly_rate", "cost_rate", "hourly_rate", "budget"] {
        assert!(with_pay || !object.contains_key(key), "{key}");
    }
}

/// The stored JSON parses to the same record, compares equal to it, and can be emitted as an event.
fn expect_same<R: Decode>(read: &Fetched<R>, with_pay: bool) {
    let record = &read.record;
    assert!(record.id() > 0);
    let Ok(again) = wire::read::<R>(&read.raw, with_pay, &"".into()) else {
        panic!("the stored JSON cannot be parsed")
    };
    assert_eq!((again.hash, again.raw.get()), (read.hash, read.raw.get()));
    assert!(again.record.fields() == record.fields() && again.record.quiet() == record.quiet());
    assert!(Change::edit(record.clone(), record.clone(), 2).changed().is_empty());
    let mirrored = MirrorRow { record: R::clone(record), version: 1, hash: read.hash, deleted: false };
    let again = [again];
    let written = plan(&HashMap::from([(record.id(), mirrored)]), &again);
    assert!(written.iter().all(|write| write.change.is_none()));
    let context = EventContext {
        account: AccountId(1),
        stream: Uuid::nil(),
        cycle: Uuid::nil(),
        mode: "full",
        request: None,
        now: DateTime::UNIX_EPOCH,
    };
    let event = Event::new(&Change::creation(record.clone(), 1), &context);
    let emitted: BTreeMap<String, &RawValue> = serde_json::from_str(&event.payload).expect("JSON");
    let after: BTreeMap<String, &RawValue> = serde_json::from_str(emitted["after"].get()).expect("JSON");
    for (name, value) in record.fields() {
        assert_eq!(after[name].get(), value.to_string(), "{name}");
    }
}

/// The link to the next page: it stays at the same host and has no user or password.
pub fn link(link: &[u8]) {
    let link = String::from_utf8_lossy(link);
    for base in ["https://api.harvestapp.com/v2", "http://[::1]:8080/v2"] {
        let base: Url = base.parse().expect("a URL");
        let current = format!("{base}/users?per_page=2000").parse().expect("a URL");
        match next_url(&current, &base, Some(&link), None) {
            Err(problem) => expect_no_secret(&problem),
            Ok(next) => {
                let next = next.expect("the link has a next page");
                let as_sent: Url = next.as_str().parse().expect("a URL");
                for url in [next, as_sent] {
                    assert_eq!(url.origin(), base.origin(), "{url}");
                    assert!(url.username().is_empty() && url.password().is_none(), "{url}");
                }
            }
        }
    }
}

/// The headers `Date` and `Retry-After`, one line each.
pub fn headers(lines: &[u8]) {
    let mut lines = lines.splitn(2, |byte| *byte == b'\n');
    let mut headers = HeaderMap::new();
    for name in [DATE, RETRY_AFTER] {
        if let Ok(value) = HeaderValue::from_bytes(lines.next().unwrap_or_default()) {
            headers.insert(name, value);
        }
    }
    let local = DateTime::from_timestamp(1_772_000_000, 0).expect("a time");
    let buffer = TimeDelta::seconds(60);
    for elapsed in [Duration::ZERO, Duration::from_mins(10)] {
        let start = ReadStart { local, server: server_time(&headers, elapsed) };
        let mark = Watermark::after(&start);
        assert!(mark.at <= local && start.server.is_none_or(|server| mark.at <= server), "{start:?}");
        assert!(mark.updated_since(buffer) < mark.at && !mark.clock_moved(&start, buffer), "{start:?}");
        if let Some(pause) = retry_after(&headers, start.server.unwrap_or(local)) {
            expect_pause(pause);
        }
    }
}

/// All requests are paused for the requested time, and for five minutes at most.
fn expect_pause(requested: Duration) {
    let limits = RateLimits {
        requests: 1000,
        window: Duration::from_secs(1),
        reserve: 0,
        grace: Duration::from_secs(1),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let waited = runtime.expect("a runtime").block_on(async {
        let limiter = RateLimiter::local(limits);
        let permit = limiter.permit(Priority::Poll).await;
        let paused_at = tokio::time::Instant::now();
        permit.answered(StatusCode::TOO_MANY_REQUESTS, Some(requested));
        limiter.wait_for_capacity(Priority::Poll, 1).await;
        paused_at.elapsed()
    });
    let least = requested.min(Duration::from_mins(5));
    assert!((least..least + Duration::from_secs(1)).contains(&waited), "{requested:?}: {waited:?}");
}

/// A settings file and, after a line `---`, environment variables. A canary is appended to each secret.
pub fn settings(text: &[u8]) {
    let text = String::from_utf8_lossy(text).replace(CANARY, "");
    let (file, variables) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let mut env = BTreeMap::from([("HOME".to_owned(), "/home/jo".to_owned())]);
    for (name, value) in variables.lines().filter_map(|line| line.split_once('=')) {
        let value = match name {
            "DATABASE_URL" | "ROSTERD__DATABASE__URL" => {
                format!("postgres://rosterd:{value}{CANARY}@db.test/roster")
            }
            "HARVEST_ACCESS_TOKEN" | "HARVEST_OAUTH_CLIENT_SECRET" | "HARVEST_OAUTH_REFRESH_TOKEN" => {
                format!("{value}{CANARY}")
            }
            _ => value.to_owned(),
        };
        env.insert(name.to_owned(), value);
    }
    let account = format!("accounts = [{{ id = 7, access_token = \"{CANARY}\" }}]\n");
    let account = if file.contains("accounts") { "" } else { account.as_str() };
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("rosterd.toml");
    std::fs::write(&path, format!("{account}{file}")).expect("a file");
    match Settings::load(Some(&path), &env) {
        Ok(settings) => {
            expect_no_secret(&settings.warnings.concat());
            expect_no_secret(&format!("{settings:?}"));
            expect_valid(&settings);
        }
        Err(error) => {
            expect_no_secret(&format!("{error} {error:?}"));
            assert!(!error.faults().is_empty());
            for fault in error.faults() {
                let named = fault.contains("rosterd.toml") || env.keys().any(|name| fault.contains(name));
                assert!(named, "the source of the setting is missing: {fault}");
            }
        }
    }
}

fn expect_valid(settings: &Settings) {
    let Settings { harvest, rate_limit, sync, rates, .. } = settings;
    for url in [&harvest.base_url, &harvest.identity_url] {
        let host = url.host_str().unwrap_or_default();
        let here = ["localhost", "[::1]"].contains(&host) || host.starts_with("127.");
        assert!(url.scheme() == "https" || here || harvest.allow_plain_http, "{url}");
        assert!(url.username().is_empty() && url.password().is_none() && url.query().is_none(), "{url}");
    }
    assert!(rate_limit.reserve < rate_limit.requests && rate_limit.window >= Duration::from_millis(100));
    assert!(sync.full_interval >= sync.poll_interval.slowest && (rates.mirror || !rates.histories));
    assert!((0.0..=1.0).contains(&sync.deletion_guard.fraction));
    let mut ids: Vec<i64> = settings.accounts().iter().map(|account| account.id).collect();
    assert!(ids.iter().all(|id| *id > 0));
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}
