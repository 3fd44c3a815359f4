//! Selects the injected faults that apply to a request.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Action, Answer, Edit, EditBytes, Fault, Kind, RetryAfter};

/// The injected faults that are still active.
#[derive(Default)]
pub(crate) struct Faults(Vec<(Fault, Instant)>);

impl Faults {
    pub fn inject(&mut self, fault: Fault, now: Instant) {
        self.0.push((fault, now));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Removes and returns the faults that apply to this request.
    pub fn take_matching(&mut self, path: &str, now: Instant) -> InjectedFaults {
        let mut injected = InjectedFaults::default();
        self.0.retain(|(fault, since)| fault.duration.is_none_or(|time| now - *since < time));
        for (fault, _) in &mut self.0 {
            if injected.replacement.is_some() || fault.remaining == Some(0) || !path.contains(&fault.path) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.remaining = fault.remaining.map(|left| left - 1);
            let mut replace = |replacement| {
                injected.replacement = Some(replacement);
                injected.replace_after_processing = fault.after_processing;
            };
            match &fault.kind {
                Kind::Html(status) => {
                    replace(Replacement::Html { status: *status, retry_after: fault.retry_after });
                }
                Kind::Refusal(status) => replace(Replacement::Refusal(*status)),
                Kind::Answer(answer) => replace(Replacement::Answer(answer.clone())),
                Kind::Reset => replace(Replacement::Reset),
                Kind::Delay(by) => injected.delay += *by,
                Kind::HoldRequest(until) => injected.hold_request_until.push(until.clone()),
                Kind::LostResponse => injected.lost = true,
                Kind::SlowResponse(by) => injected.response_delay += *by,
                Kind::HoldResponse(until) => injected.hold_until.push(until.clone()),
                Kind::TruncateBody => injected.truncate_body = true,
                Kind::HideRecords(ids) => injected.hidden.extend(ids),
                Kind::Edit(edit) => injected.edits.push(edit.clone()),
                Kind::EditBytes(edit) => injected.byte_edits.push(edit.clone()),
                Kind::RunBeforeResponse(action) => injected.before_response.push(action.clone()),
            }
        }
        self.0.retain(|(fault, _)| fault.remaining != Some(0));
        injected
    }
}

/// The combined faults of one request.
#[derive(Default)]
pub(crate) struct InjectedFaults {
    pub delay: Duration,
    /// The request waits until all of these tokens are cancelled.
    pub hold_request_until: Vec<CancellationToken>,
    pub replacement: Option<Replacement>,
    /// Whether the request is processed before its response is replaced.
    pub replace_after_processing: bool,
    /// Ids of records to leave out of lists.
    pub hidden: HashSet<i64>,
    pub edits: Vec<Edit>,
    pub byte_edits: Vec<EditBytes>,
    pub before_response: Vec<Action>,
    /// Delay between processing and response.
    pub response_delay: Duration,
    /// The response waits until all of these tokens are cancelled.
    pub hold_until: Vec<CancellationToken>,
    /// The request is processed, but the connection closes without a response.
    pub lost: bool,
    pub truncate_body: bool,
}

/// A fault that replaces the response.
pub(crate) enum Replacement {
    Html { status: u16, retry_after: Option<RetryAfter> },
    Refusal(u16),
    Answer(Answer),
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applies(faults: &mut Faults, path: &str) -> bool {
        faults.take_matching(path, Instant::now()).replacement.is_some()
    }

    #[test]
    fn fault_applies_to_matching_requests_as_often_as_configured() {
        let mut faults = Faults::default();
        faults.inject(Fault::html(502).on("/users").skip_first(1).times(2), Instant::now());
        let applied: Vec<bool> = ["/users", "/company", "/users?page=2", "/users", "/users"]
            .into_iter()
            .map(|path| applies(&mut faults, path))
            .collect();
        assert_eq!(applied, [false, false, true, true, false]);
    }

    #[test]
    fn fault_with_a_duration_expires() {
        let (mut faults, start) = (Faults::default(), Instant::now());
        faults.inject(Fault::reset().for_duration(Duration::from_secs(3)), start);
        assert!(faults.take_matching("/", start + Duration::from_secs(2)).replacement.is_some());
        assert!(faults.take_matching("/", start + Duration::from_secs(3)).replacement.is_none());
    }

    #[test]
    fn delay_combines_with_the_next_fault() {
        let mut faults = Faults::default();
        faults.inject(Fault::delay_request(Duration::from_millis(5)), Instant::now());
        faults.inject(Fault::html(500), Instant::now());
        faults.inject(Fault::truncate_body(), Instant::now());
        let injected = faults.take_matching("/", Instant::now());
        assert_eq!(injected.delay, Duration::from_millis(5));
        assert!(
            injected.replacement.is_some() && !injected.truncate_body,
            "truncation needs a processed request"
        );
        assert!(faults.take_matching("/", Instant::now()).truncate_body);
    }
}
