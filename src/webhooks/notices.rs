//! Which notices are due: one `rosterd.attention_needed` for a concern that lasts, and one `rosterd.attention_over` after it
//! has ended. Pure functions.

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use crate::store::webhooks::notices::{KnownNotice, NoticeChange, NoticeState};

/// A concern as the messages of an endpoint show it.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    /// Kind, and what the concern is about: the same while the concern lasts.
    pub concern: String,
    /// `None` if the concern belongs to no account.
    pub account_id: Option<i64>,
    pub data: Value,
}

/// The receiver is notified of a concern that has lasted so long, and of its end when it has been absent so long. One that
/// comes and goes more often causes one message.
pub(super) const SETTLE: TimeDelta = TimeDelta::minutes(1);
/// After this time, `rosterd.attention_over` is not tried any more.
const GIVE_UP: TimeDelta = TimeDelta::days(1);
/// Concerns of one endpoint, the most urgent first. The others follow when some have ended.
const MAX_CONCERNS: usize = 100;

/// What changes if `current` are the concerns at `now`, the most urgent first.
pub(super) fn changes(
    known: &[KnownNotice],
    current: &[Notice],
    now: DateTime<Utc>,
) -> Vec<(String, NoticeChange)> {
    let present: BTreeSet<_> = current.iter().map(|notice| notice.concern.as_str()).collect();
    let mut names: BTreeSet<_> = known.iter().map(|notice| notice.concern.as_str()).collect();
    let mut changes = Vec::new();
    for notice in known {
        if let Some(change) = change(notice, present.contains(notice.concern.as_str()), now) {
            changes.push((notice.concern.clone(), change));
        }
    }
    for notice in current {
        if names.len() < MAX_CONCERNS && names.insert(&notice.concern) {
            changes.push((notice.concern.clone(), NoticeChange::Began(notice.data.clone())));
        }
    }
    changes
}

fn change(notice: &KnownNotice, is_present: bool, now: DateTime<Utc>) -> Option<NoticeChange> {
    let absent = notice.absent_since.map(|at| now - at);
    match (notice.state, absent) {
        // If the concern has come back, the end of the earlier one is sent first.
        (NoticeState::Over, absent) => {
            absent.is_none_or(|absent| absent >= GIVE_UP).then_some(NoticeChange::Forgotten)
        }
        (_, Some(_)) if is_present => Some(NoticeChange::AbsentSince(None)),
        (_, None) if !is_present => Some(NoticeChange::AbsentSince(Some(now))),
        (NoticeState::New, Some(absent)) if absent >= SETTLE => Some(NoticeChange::Forgotten),
        (NoticeState::Needed, Some(absent)) if absent >= SETTLE => Some(NoticeChange::Over),
        _ => None,
    }
}

/// The notice to send next. None while any one waits, so that a receiver that fails gets one request at a time.
pub(super) fn due(known: &[KnownNotice], now: DateTime<Utc>) -> Option<&KnownNotice> {
    if known.iter().any(|notice| notice.next_attempt_at.is_some_and(|at| at > now)) {
        return None;
    }
    let is_due = |notice: &&KnownNotice| match notice.state {
        NoticeState::New => notice.absent_since.is_none() && now - notice.began_at >= SETTLE,
        NoticeState::Needed => notice.absent_since.is_none() && !notice.is_accepted,
        NoticeState::Over => true,
    };
    // One that the receiver refuses does not keep others back.
    known.iter().filter(is_due).min_by_key(|notice| notice.attempts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: TimeDelta = TimeDelta::seconds(1);

    fn now() -> DateTime<Utc> {
        "2026-03-03T09:00:00Z".parse().unwrap()
    }

    fn known(state: NoticeState) -> KnownNotice {
        KnownNotice {
            concern: "stale/1".to_owned(),
            state,
            data: Value::Null,
            began_at: now(),
            absent_since: None,
            is_accepted: false,
            attempts: 0,
            next_attempt_at: None,
        }
    }

    fn notice(concern: &str) -> Notice {
        Notice { concern: concern.to_owned(), account_id: None, data: Value::Null }
    }

    fn change_of(known: &KnownNotice, is_present: bool, now: DateTime<Utc>) -> Option<NoticeChange> {
        let current = if is_present { vec![notice("stale/1")] } else { Vec::new() };
        let mut changes = changes(std::slice::from_ref(known), &current, now);
        assert!(changes.len() <= 1, "{changes:?}");
        changes.pop().map(|(_, change)| change)
    }

    #[test]
    fn concern_is_accepted_after_a_minute_and_only_once() {
        let began = changes(&[], &[notice("stale/1"), notice("stale/1"), notice("stale/2")], now());
        let began: Vec<_> = began.iter().map(|(concern, _)| concern.as_str()).collect();
        assert_eq!(began, ["stale/1", "stale/2"]);
        let new = known(NoticeState::New);
        assert!(due(std::slice::from_ref(&new), now() + SETTLE - SECOND).is_none());
        assert!(due(std::slice::from_ref(&new), now() + SETTLE).is_some());
        assert_eq!(change_of(&new, true, now() + SETTLE), None);
        let sent = KnownNotice { is_accepted: true, ..known(NoticeState::Needed) };
        assert!(due(std::slice::from_ref(&sent), now() + TimeDelta::days(9)).is_none());
        assert_eq!(change_of(&sent, true, now() + TimeDelta::days(9)), None);
    }

    #[test]
    fn concern_that_comes_and_goes_is_accepted_once_and_is_over_once() {
        let mut sent = KnownNotice { is_accepted: true, ..known(NoticeState::Needed) };
        assert_eq!(change_of(&sent, false, now()), Some(NoticeChange::AbsentSince(Some(now()))));
        sent.absent_since = Some(now());
        assert_eq!(change_of(&sent, false, now() + SETTLE - SECOND), None);
        assert_eq!(change_of(&sent, true, now() + SETTLE - SECOND), Some(NoticeChange::AbsentSince(None)));
        assert_eq!(change_of(&sent, false, now() + SETTLE), Some(NoticeChange::Over));
        sent.state = NoticeState::Over;
        assert!(due(std::slice::from_ref(&sent), now()).is_some());
        assert_eq!(change_of(&sent, true, now() + SETTLE), None, "the end is sent first");
        assert_eq!(change_of(&sent, false, now() + GIVE_UP), Some(NoticeChange::Forgotten));
    }

    #[test]
    fn concern_that_ended_before_it_was_sent_is_not_sent() {
        let new = KnownNotice { absent_since: Some(now()), ..known(NoticeState::New) };
        assert!(due(std::slice::from_ref(&new), now() + SETTLE).is_none());
        assert_eq!(change_of(&new, false, now() + SETTLE - SECOND), None);
        assert_eq!(change_of(&new, false, now() + SETTLE), Some(NoticeChange::Forgotten));
        // The receiver may have accepted an attempt without an answer, so the end is sent.
        let tried = KnownNotice { state: NoticeState::Needed, ..new };
        assert!(due(std::slice::from_ref(&tried), now() + SETTLE).is_none());
        assert_eq!(change_of(&tried, false, now() + SETTLE), Some(NoticeChange::Over));
    }

    #[test]
    fn failing_notice_delays_the_others_until_its_next_attempt_only() {
        let refused = KnownNotice {
            attempts: 3,
            next_attempt_at: Some(now() + SETTLE * 2),
            ..known(NoticeState::Needed)
        };
        let other = KnownNotice { concern: "stale/2".to_owned(), ..known(NoticeState::New) };
        let all = [refused, other];
        assert!(due(&all, now() + SETTLE).is_none());
        assert_eq!(due(&all, now() + SETTLE * 2).map(|notice| notice.concern.as_str()), Some("stale/2"));
    }

    #[test]
    fn at_most_a_hundred_concerns_are_sent_the_most_urgent_first() {
        let current: Vec<_> = (0..150).map(|account| notice(&format!("stale/{account}"))).collect();
        let first = changes(&[], &current, now());
        assert_eq!((first.len(), first[99].0.as_str()), (MAX_CONCERNS, "stale/99"));
    }
}
