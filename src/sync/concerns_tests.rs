use super::*;
use crate::store::status::HeldCount;

const ALERTS: &str = include_str!("../../deploy/alerts.yaml");

fn limits() -> Limits {
    Limits {
        poll_interval: Duration::from_mins(1),
        retention: Duration::from_hours(30 * 24),
        accounts: Vec::new(),
    }
}

/// The kinds of concerns about an account, or another status, after `change`.
fn kinds(limits: &Limits, change: impl FnOnce(&mut Status)) -> Vec<Kind> {
    let mut status = Status::example([123_456]);
    change(&mut status);
    concerns(&status, limits).iter().map(|concern| concern.kind).collect()
}

fn last_read(status: &mut Status, ago: TimeDelta) {
    for list in &mut status.accounts[0].resources {
        list.last_success_at = Some(status.now - ago);
    }
}

fn never_read(status: &mut Status, since: TimeDelta) {
    status.accounts[0].resources.iter_mut().for_each(|list| list.last_success_at = None);
    status.accounts[0].first_lease_at = Some(status.now - since);
}

fn no_instance(status: &mut Status, since: TimeDelta) {
    last_read(status, since);
    let account = &mut status.accounts[0];
    (account.holder, account.lease_expires_at) = (None, Some(status.now - since));
}

#[test]
fn concern_begins_when_its_threshold_is_exceeded() {
    const SECOND: TimeDelta = TimeDelta::seconds(1);
    type Change = fn(&mut Status, TimeDelta);
    let cases: [(Kind, TimeDelta, Change); 6] = [
        (Kind::Stale, TimeDelta::minutes(15), last_read),
        (Kind::NeverRead, TimeDelta::minutes(30), never_read),
        (Kind::NoActiveInstance, TimeDelta::minutes(2), no_instance),
        (Kind::WritesWaiting, TimeDelta::hours(1), |status, since| {
            status.accounts[0].open_writes.waiting_since = Some(status.now - since);
        }),
        (Kind::ConsumerBehind, TimeDelta::days(24), |status, since| {
            status.consumers[0].oldest_at = Some(status.now - since);
        }),
        // The account's list that was read longest ago counts.
        (Kind::Stale, TimeDelta::minutes(15), |status, since| {
            status.accounts[0].resources[1].last_success_at = Some(status.now - since);
        }),
    ];
    for (kind, threshold, change) in cases {
        assert_eq!(kinds(&limits(), |status| change(status, threshold)), [], "{kind:?}");
        assert_eq!(kinds(&limits(), |status| change(status, threshold + SECOND)), [kind]);
    }
    let slow = Limits { poll_interval: Duration::from_mins(10), ..limits() };
    assert_eq!(kinds(&slow, |status| last_read(status, TimeDelta::minutes(30))), []);
    assert_eq!(kinds(&slow, |status| no_instance(status, TimeDelta::minutes(10))), []);
}

#[test]
fn each_problem_is_a_concern_with_its_sentence() {
    type Change = fn(&mut Status);
    let cases: [(Change, Kind, &str); 9] = [
        (|it| it.accounts.clear(), Kind::NoAccount, "no account has been read yet"),
        (
            |it| it.accounts[0].last_error = Some("no response".to_owned()),
            Kind::CycleFailed,
            "the last cycle of account 123456 failed: no response",
        ),
        (
            |it| it.accounts[0].held_deletions = vec![HeldCount::example()],
            Kind::DeletionsHeld,
            "account 123456: 7 deletions of users are held for review (guard)",
        ),
        (
            |it| it.accounts[0].rejected_records = 1,
            Kind::RecordsRejected,
            "account 123456: 1 record is rejected",
        ),
        (
            |it| it.accounts[0].resources[0].unexplained_total = Some(5),
            Kind::TotalUnexplained,
            "account 123456: Harvest's total of users is 5 instead of 0; a full read does not explain it",
        ),
        (
            |it| it.accounts[0].open_writes.held = 2,
            Kind::WritesHeld,
            "account 123456: 2 writes are held for review",
        ),
        (
            |it| it.accounts[0].open_writes.in_doubt = 1,
            Kind::WritesInDoubt,
            "account 123456: 1 write is without an answer",
        ),
        (
            |it| it.consumers[0].has_lost_events = true,
            Kind::ConsumerLostEvents,
            "consumer access-review has lost events and must reload from a snapshot",
        ),
        (|it| last_read(it, TimeDelta::hours(74)), Kind::Stale, "account 123456 was last read 3 d 2 h ago"),
    ];
    for (change, kind, sentence) in cases {
        let mut status = Status::example([123_456]);
        change(&mut status);
        let found = concerns(&status, &limits());
        assert_eq!((found.len(), found[0].kind, &*found[0].sentence), (1, kind, sentence));
    }
    let decided = HeldCount { decision: Some("accepted".to_owned()), ..HeldCount::example() };
    assert_eq!(kinds(&limits(), |it| it.accounts[0].held_deletions = vec![decided]), []);
}

#[test]
fn webhook_that_stops_fails_or_is_paused_is_a_concern_and_its_consumer_is_none() {
    let found = |change: fn(&mut WebhookStatus)| {
        kinds(&limits(), |status| {
            let mut webhook = WebhookStatus::example();
            change(&mut webhook);
            status.consumers[0].name = format!("webhook:{}", webhook.name);
            status.consumers[0].has_lost_events = true;
            status.webhooks.push(webhook);
        })
    };
    assert_eq!(found(|it| it.oldest_seconds = Some(900)), []);
    assert_eq!(found(|it| it.oldest_seconds = Some(901)), [Kind::WebhookFailing]);
    for state in ["gone", "lost"] {
        let mut status = Status::example([123_456]);
        status.webhooks.push(WebhookStatus { state: state.to_owned(), ..WebhookStatus::example() });
        assert_eq!(concerns(&status, &limits())[0].kind, Kind::WebhookStopped);
    }
    assert_eq!(found(|it| it.set_aside.push(812)), [Kind::WebhookStopped]);
    assert_eq!(found(|it| it.state = "paused".to_owned()), [Kind::WebhookPaused]);
}

#[test]
fn critical_concerns_come_first_and_accounts_outside_the_settings_count_only_with_an_instance() {
    let stale = |status: &mut Status| {
        status.accounts[0].rejected_records = 1;
        last_read(status, TimeDelta::days(1));
        no_instance(status, TimeDelta::days(1));
    };
    let all = [Kind::Stale, Kind::NoActiveInstance, Kind::RecordsRejected];
    assert_eq!(kinds(&limits(), stale), all);
    assert_eq!(kinds(&Limits { accounts: vec![123_456], ..limits() }, stale), all);
    let other = Limits { accounts: vec![1], ..limits() };
    assert_eq!(kinds(&other, stale), [Kind::RecordsRejected]);
    assert_eq!(kinds(&other, |status| last_read(status, TimeDelta::days(1))), [Kind::Stale]);
}

#[test]
fn each_alert_has_the_severity_and_the_threshold_of_its_concern() {
    let minutes = |limit: TimeDelta| format!("for: {}m\n", limit.num_minutes());
    let any = String::new;
    let table = [
        // The state of processes and their requests is not in the database.
        ("RosterdAbsent", None, any()),
        ("RosterdUnsteady", None, any()),
        ("RosterdCredentialsRefused", None, any()),
        ("RosterdLeaseFlapping", None, any()),
        ("RosterdThrottled", None, any()),
        ("RosterdScimFailing", None, any()),
        // No concern, because it would be one more notice to the same receiver.
        ("RosterdNoticesFailing", None, any()),
        ("RosterdStale", Some(Kind::Stale), format!("> {}\n", STALE_AFTER.num_seconds())),
        ("RosterdNeverRead", Some(Kind::NeverRead), minutes(FIRST_READ)),
        ("RosterdNoWriter", Some(Kind::NoActiveInstance), minutes(TAKEOVER)),
        // The alert counts failures; the concern is the last one.
        ("RosterdCyclesFailing", Some(Kind::CycleFailed), any()),
        // The alerts wait until a command that is at work has ended.
        ("RosterdDeletionsHeld", Some(Kind::DeletionsHeld), any()),
        ("RosterdRecordsRejected", Some(Kind::RecordsRejected), any()),
        ("RosterdWritesHeld", Some(Kind::WritesHeld), any()),
        ("RosterdWritesInDoubt", Some(Kind::WritesInDoubt), any()),
        ("RosterdWritesWaiting", Some(Kind::WritesWaiting), format!("for: {}h\n", WRITE_WAIT.num_hours())),
        ("RosterdWebhookFailing", Some(Kind::WebhookFailing), format!("> {}\n", DELIVERY.num_seconds())),
        ("RosterdWebhookStopped", Some(Kind::WebhookStopped), any()),
    ];
    let rules: Vec<_> = ALERTS.split("- alert: ").skip(1).collect();
    assert_eq!(rules.len(), table.len(), "each alert must be in the table");
    for (name, kind, threshold) in table {
        let rule = rules.iter().find(|rule| rule.starts_with(&format!("{name}\n"))).expect(name);
        assert!(rule.contains(&threshold), "{name}: {threshold}");
        if let Some(kind) = kind {
            assert!(rule.contains(&format!("severity: {}\n", kind.severity().name())), "{name}");
        }
    }
}
