//! What an answer means, and when to try again. Pure functions.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Delivered,
    /// The receiver answered 410: it wants no more messages.
    Gone,
    Failed(Failure),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// From a closed list, without the address: `status 422`, `redirect 308`, `timeout`, `connect`, `dns`, `tls` or
    /// `reset`; after a 400, 401 or 403 also how far the clocks differ.
    pub text: String,
    /// Whether the receiver refused this message, and may accept others.
    pub is_refusal: bool,
    /// How long the receiver asks to wait.
    pub retry_after: Option<Duration>,
}

/// Waits between attempts. The last one repeats, because only one message of an endpoint is tried at a time: a receiver
/// that is back waits five minutes at most.
const SCHEDULE: [Duration; 5] = [
    Duration::from_secs(5),
    Duration::from_secs(15),
    Duration::from_secs(45),
    Duration::from_mins(2),
    Duration::from_mins(5),
];
/// The longest `Retry-After` that is honoured.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(1);
/// Receivers refuse timestamps that differ by more than five minutes.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// The outcome of a response. `skew`: rosterd's clock minus the receiver's, if the response has a `Date`.
pub(super) fn of_status(status: u16, retry_after: Option<Duration>, skew: Option<TimeDelta>) -> Outcome {
    let text = match status {
        200..=299 => return Outcome::Delivered,
        410 => return Outcome::Gone,
        300..=399 => format!("redirect {status}"),
        400 | 401 | 403 => match skew.filter(|skew| skew.abs() > TOLERANCE) {
            Some(skew) => format!("status {status}; clocks differ by {} s", skew.num_seconds().abs()),
            None => format!("status {status}"),
        },
        _ => format!("status {status}"),
    };
    Outcome::Failed(Failure { text, is_refusal: matches!(status, 400 | 413 | 415 | 422), retry_after })
}

pub(super) fn without_response(text: &'static str) -> Outcome {
    Outcome::Failed(Failure { text: text.to_owned(), is_refusal: false, retry_after: None })
}

/// rosterd's clock minus the receiver's.
pub(super) fn skew(receiver: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Option<TimeDelta> {
    receiver.map(|receiver| now - receiver)
}

/// The wait after the failed attempt number `attempt` (from 1), with `random` (0 to 1) as jitter of a fifth.
pub(super) fn wait(attempt: i32, retry_after: Option<Duration>, random: f64) -> Duration {
    let place = usize::try_from(attempt - 1).unwrap_or_default().min(SCHEDULE.len() - 1);
    let scheduled = SCHEDULE[place].mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0));
    scheduled.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn answers_are_classified() {
        let failed = |status| match of_status(status, None, None) {
            Outcome::Failed(failure) => (failure.text, failure.is_refusal),
            outcome => panic!("{outcome:?}"),
        };
        for status in [200, 201, 204, 299] {
            assert_eq!(of_status(status, Some(SECOND), None), Outcome::Delivered);
        }
        assert_eq!(of_status(410, None, None), Outcome::Gone);
        for (status, text, is_refusal) in [
            (301, "redirect 301", false),
            (400, "status 400", true),
            (404, "status 404", false),
            (413, "status 413", true),
            (415, "status 415", true),
            (422, "status 422", true),
            (429, "status 429", false),
            (500, "status 500", false),
        ] {
            assert_eq!(failed(status), (text.to_owned(), is_refusal));
        }
        let late = of_status(401, None, Some(TimeDelta::seconds(-412)));
        let Outcome::Failed(failure) = late else { panic!() };
        assert_eq!(failure.text, "status 401; clocks differ by 412 s");
        assert!(matches!(of_status(500, None, Some(TimeDelta::seconds(412))),
                         Outcome::Failed(failure) if failure.text == "status 500"));
    }

    #[test]
    fn waits_grow_to_five_minutes_and_honour_retry_after_up_to_an_hour() {
        let waits: Vec<_> = (1..=7).map(|attempt| wait(attempt, None, 0.5).as_secs()).collect();
        assert_eq!(waits, [5, 15, 45, 120, 300, 300, 300]);
        assert_eq!((wait(1, None, 0.0), wait(1, None, 1.0)), (4 * SECOND, 6 * SECOND));
        assert_eq!(wait(1, Some(60 * SECOND), 0.5), 60 * SECOND);
        assert_eq!(wait(5, Some(60 * SECOND), 0.5), 300 * SECOND);
        assert_eq!(wait(1, Some(86_400 * SECOND), 0.5), 3600 * SECOND);
    }
}
