//! Which trouble strikes which request.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{Act, Edit, EditBytes, Fault, Kind, RetryAfter};

/// The faults that wait for their requests.
#[derive(Default)]
pub(crate) struct Faults(Vec<(Fault, Instant)>);

impl Faults {
    pub fn inject(&mut self, fault: Fault, now: Instant) {
        self.0.push((fault, now));
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes what strikes this request.
    pub fn strike(&mut self, path: &str, now: Instant) -> Blow {
        let mut blow = Blow::default();
        self.0.retain(|(fault, since)| fault.lasting.is_none_or(|time| now - *since < time));
        for (fault, _) in &mut self.0 {
            if blow.instead.is_some() || fault.left == Some(0) || !path.contains(&fault.path) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            fault.left = fault.left.map(|left| left - 1);
            match &fault.kind {
                Kind::Html(status) => {
                    blow.instead = Some(Instead::Html { status: *status, retry_after: fault.retry_after });
                }
                Kind::Refusal(status) => blow.instead = Some(Instead::Refusal(*status)),
                Kind::Reset => blow.instead = Some(Instead::Reset),
                Kind::Delay(by) => blow.delay += *by,
                Kind::Lost => blow.lost = true,
                Kind::SlowAnswer(by) => blow.answer_delay += *by,
                Kind::Held(until) => blow.held.push(until.clone()),
                Kind::Cut => blow.cut = true,
                Kind::Hide(ids) => blow.hidden.extend(ids),
                Kind::Edit(edit) => blow.edits.push(edit.clone()),
                Kind::EditBytes(edit) => blow.byte_edits.push(edit.clone()),
                Kind::Meanwhile(act) => blow.meanwhile.push(act.clone()),
            }
        }
        self.0.retain(|(fault, _)| fault.left != Some(0));
        blow
    }
}

/// Everything that happens to one request.
#[derive(Default)]
pub(crate) struct Blow {
    pub delay: Duration,
    pub instead: Option<Instead>,
    /// The records that no list shows.
    pub hidden: HashSet<i64>,
    pub edits: Vec<Edit>,
    pub byte_edits: Vec<EditBytes>,
    pub meanwhile: Vec<Act>,
    /// How long the answer waits once it is made.
    pub answer_delay: Duration,
    /// What the answer waits for once it is made.
    pub held: Vec<CancellationToken>,
    /// The answer is made, and nobody gets it.
    pub lost: bool,
    pub cut: bool,
}

/// What comes in place of an answer.
pub(crate) enum Instead {
    Html { status: u16, retry_after: Option<RetryAfter> },
    Refusal(u16),
    Reset,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(faults: &mut Faults, path: &str) -> bool {
        faults.strike(path, Instant::now()).instead.is_some()
    }

    #[test]
    fn a_fault_strikes_where_and_as_often_as_it_was_told_to() {
        let mut faults = Faults::default();
        faults.inject(Fault::html(502).on("/users").skipping(1).times(2), Instant::now());
        let strikes: Vec<bool> = ["/users", "/company", "/users?page=2", "/users", "/users"]
            .into_iter()
            .map(|path| struck(&mut faults, path))
            .collect();
        assert_eq!(strikes, [false, false, true, true, false]);
    }

    #[test]
    fn a_fault_for_a_while_ends_by_itself() {
        let (mut faults, start) = (Faults::default(), Instant::now());
        faults.inject(Fault::reset().lasting(Duration::from_secs(3)), start);
        assert!(faults.strike("/", start + Duration::from_secs(2)).instead.is_some());
        assert!(faults.strike("/", start + Duration::from_secs(3)).instead.is_none());
    }

    #[test]
    fn delays_go_together_with_what_follows() {
        let mut faults = Faults::default();
        faults.inject(Fault::delay(Duration::from_millis(5)), Instant::now());
        faults.inject(Fault::html(500), Instant::now());
        faults.inject(Fault::cut(), Instant::now());
        let blow = faults.strike("/", Instant::now());
        assert_eq!(blow.delay, Duration::from_millis(5));
        assert!(blow.instead.is_some() && !blow.cut, "the cut waits for a request that is answered");
        assert!(faults.strike("/", Instant::now()).cut);
    }
}
