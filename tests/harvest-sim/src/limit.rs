//! Who came when: the exact sliding window, and the record of every request that tests read.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::options::{Limit, Options};

/// Harvest's two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// `api.harvestapp.com`.
    Api,
    /// `id.getharvest.com`: people, tokens, accounts.
    Identity,
}

/// A request as it arrived. What would tell a credential is not kept.
#[derive(Clone, Debug)]
pub struct Request {
    /// When its head had been read.
    pub at: Instant,
    /// At which host.
    pub host: Host,
    /// The HTTP method.
    pub method: String,
    /// Path and query, without what would let its reader in.
    pub path: String,
    /// What was answered; `None` while it is under way and when the connection was reset instead.
    pub status: Option<u16>,
    /// The fields of a request to the API that is no GET; `None` of any other and where they cannot be read.
    pub fields: Option<Value>,
    counts: bool,
    number: u64,
}

/// The gate every request passes first.
#[derive(Default)]
pub(crate) struct Gate {
    log: Vec<Request>,
    arrivals: u64,
    counted: VecDeque<Instant>,
}

impl Gate {
    /// Logs the request and says whether it may pass, or after how long the throttle is lifted.
    pub fn arrive(
        &mut self,
        at: Instant,
        host: Host,
        method: &str,
        path: String,
        options: &Options,
    ) -> (u64, Result<(), Duration>) {
        self.arrivals += 1;
        let number = self.arrivals;
        let counts = host == Host::Api || options.identity_requests_count;
        self.log.push(Request {
            at,
            host,
            method: method.to_owned(),
            path,
            status: None,
            fields: None,
            counts,
            number,
        });
        let verdict = match options.limit.filter(|_| counts) {
            Some(limit) => self.admit(at, limit, options.refused_requests_count),
            None => Ok(()),
        };
        (number, verdict)
    }

    pub fn answered(&mut self, number: u64, status: u16) {
        // Looked up by number: the log may have been cleared since this request came in.
        if let Ok(index) = self.log.binary_search_by_key(&number, |request| request.number) {
            self.log[index].status = Some(status);
        }
    }

    pub fn wrote(&mut self, number: u64, fields: Value) {
        if let Ok(index) = self.log.binary_search_by_key(&number, |request| request.number) {
            self.log[index].fields = Some(fields);
        }
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.clone()
    }

    pub fn clear_log(&mut self) {
        self.log.clear();
    }

    /// The most requests that count, let through or refused, that came in any closed window of this length.
    pub fn most_in_any(&self, window: Duration) -> usize {
        let (mut within, mut most) = (VecDeque::new(), 0);
        for request in self.log.iter().filter(|request| request.counts) {
            within.push_back(request.at);
            while within.front().is_some_and(|&first| request.at - first > window) {
                within.pop_front();
            }
            most = most.max(within.len());
        }
        most
    }

    fn admit(&mut self, at: Instant, limit: Limit, count_refused: bool) -> Result<(), Duration> {
        while self.counted.front().is_some_and(|&first| at - first > limit.window) {
            self.counted.pop_front();
        }
        let full = self.counted.len() >= limit.requests;
        if !full || count_refused {
            self.counted.push_back(at);
        }
        if !full {
            return Ok(());
        }
        // The throttle is lifted when the newest `requests` of them are no longer all in the window.
        let decisive = self.counted.len().saturating_sub(limit.requests);
        let lifted_in = self.counted.get(decisive).map_or(limit.window, |&then| then + limit.window - at);
        Err(lifted_in)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(15);

    fn options(requests: usize) -> Options {
        Options { limit: Some(Limit { requests, window: WINDOW }), ..Options::default() }
    }

    #[test]
    fn the_window_slides_and_is_closed() {
        let (mut gate, options, start) = (Gate::default(), options(2), Instant::now());
        let mut pass = |after: f64| {
            gate.arrive(start + Duration::from_secs_f64(after), Host::Api, "GET", "/".to_owned(), &options).1
        };
        assert_eq!(pass(0.0), Ok(()));
        assert_eq!(pass(10.0), Ok(()));
        assert_eq!(pass(14.0), Err(Duration::from_secs(1)));
        assert_eq!(pass(15.0), Err(Duration::ZERO), "both ends belong to the window");
        assert_eq!(pass(15.001), Ok(()));
        assert!(pass(20.0).is_err(), "10 and 15.001 still fill it");
    }

    #[test]
    fn the_report_counts_refused_requests_as_well() {
        let (mut gate, options, start) = (Gate::default(), options(1), Instant::now());
        for second in [0, 1, 15, 16, 40] {
            let (number, _) =
                gate.arrive(start + Duration::from_secs(second), Host::Api, "GET", "/".to_owned(), &options);
            gate.answered(number, 200);
        }
        assert_eq!(gate.most_in_any(WINDOW), 3);
        assert_eq!(gate.most_in_any(Duration::ZERO), 1);
        assert_eq!(gate.log().len(), 5);
    }

    #[test]
    fn refused_requests_prolong_the_throttle_only_when_asked_to() {
        let start = Instant::now();
        for (count, after_first) in [(false, true), (true, false)] {
            let options = Options { refused_requests_count: count, ..options(1) };
            let mut gate = Gate::default();
            let mut pass = |after| {
                gate.arrive(start + Duration::from_secs(after), Host::Api, "GET", "/".to_owned(), &options).1
            };
            assert_eq!(pass(0), Ok(()));
            assert!(pass(10).is_err());
            assert_eq!(pass(16).is_ok(), after_first);
        }
    }
}
