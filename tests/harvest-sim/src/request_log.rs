//! The sliding-window rate limit and the log of all requests.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::options::{Limit, Options};

/// Harvest's two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// `api.harvestapp.com`.
    Api,
    /// `id.getharvest.com`: consent, tokens and accounts.
    Identity,
}

/// A logged request, without credentials.
#[derive(Clone, Debug)]
pub struct Request {
    /// When the server had read the headers.
    pub at: Instant,
    /// The host that received the request.
    pub host: Host,
    /// The HTTP method.
    pub method: String,
    /// Path and query, without credentials.
    pub path: String,
    /// The response status; `None` while the request is in flight and after a connection reset.
    pub status: Option<u16>,
    /// The status that the simulator computed, also if the client did not receive it; `None` if the request was not
    /// processed. After a lost response to `POST /v2/users`, this is 201 and [`status`](Self::status) is `None`.
    pub processed: Option<u16>,
    /// The fields of a write request to the API; `None` for GET requests and for malformed bodies.
    pub fields: Option<Value>,
    counts: bool,
    number: u64,
}

impl Request {
    /// Whether this is a request to the API that can change the company.
    fn is_write(&self) -> bool {
        self.host == Host::Api && self.method != "GET"
    }
}

/// Logs all requests and enforces the rate limit.
#[derive(Default)]
pub(crate) struct RequestLog {
    log: Vec<Request>,
    /// The write requests that were in the log when it was cleared.
    cleared_writes: Vec<Request>,
    /// The number of the last request before the last `take_writes`.
    taken: u64,
    arrivals: u64,
    counted: VecDeque<Instant>,
}

impl RequestLog {
    /// Logs the request. Returns its number and, if the rate limit refuses it, the time until requests are admitted.
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
        let counts = host == Host::Api;
        self.log.push(Request {
            at,
            host,
            method: method.to_owned(),
            path,
            status: None,
            processed: None,
            fields: None,
            counts,
            number,
        });
        let verdict = match options.limit.filter(|_| counts) {
            Some(limit) => self.admit(at, limit),
            None => Ok(()),
        };
        (number, verdict)
    }

    /// Changes a logged request. Does nothing if the log was cleared since the request arrived.
    pub fn update(&mut self, number: u64, change: impl FnOnce(&mut Request)) {
        for log in [&mut self.log, &mut self.cleared_writes] {
            if let Ok(index) = log.binary_search_by_key(&number, |request| request.number) {
                return change(&mut log[index]);
            }
        }
    }

    pub fn log(&self) -> Vec<Request> {
        self.log.clone()
    }

    pub fn clear_log(&mut self) {
        self.cleared_writes.extend(self.log.drain(..).filter(Request::is_write));
    }

    /// The write requests since the last `take_writes`, also those before the log was cleared.
    pub fn writes(&self) -> Vec<Request> {
        let all = self.cleared_writes.iter().chain(&self.log);
        all.filter(|request| request.is_write() && request.number > self.taken).cloned().collect()
    }

    pub fn take_writes(&mut self) -> Vec<Request> {
        let writes = self.writes();
        self.taken = self.arrivals;
        self.cleared_writes.clear();
        writes
    }

    /// The maximum number of counted requests, admitted or refused, in any closed window of this length.
    pub fn max_in_window(&self, window: Duration) -> usize {
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

    fn admit(&mut self, at: Instant, limit: Limit) -> Result<(), Duration> {
        while self.counted.front().is_some_and(|&first| at - first > limit.window) {
            self.counted.pop_front();
        }
        if self.counted.len() < limit.requests {
            self.counted.push_back(at);
            return Ok(());
        }
        // The limit admits requests again when the oldest request leaves the window.
        Err(self.counted.front().map_or(limit.window, |&then| then + limit.window - at))
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
    fn rate_limit_window_slides_and_includes_both_ends() {
        let (mut request_log, options, start) = (RequestLog::default(), options(2), Instant::now());
        let mut pass = |after: f64| {
            request_log
                .arrive(start + Duration::from_secs_f64(after), Host::Api, "GET", "/".to_owned(), &options)
                .1
        };
        assert_eq!(pass(0.0), Ok(()));
        assert_eq!(pass(10.0), Ok(()));
        assert_eq!(pass(14.0), Err(Duration::from_secs(1)));
        assert_eq!(pass(15.0), Err(Duration::ZERO), "both ends belong to the window");
        assert_eq!(pass(15.001), Ok(()));
        assert!(pass(20.0).is_err(), "10 and 15.001 still fill it");
    }

    #[test]
    fn max_in_window_counts_refused_requests() {
        let (mut request_log, options, start) = (RequestLog::default(), options(1), Instant::now());
        for second in [0, 1, 15, 16, 40] {
            let (number, _) = request_log.arrive(
                start + Duration::from_secs(second),
                Host::Api,
                "GET",
                "/".to_owned(),
                &options,
            );
            request_log.update(number, |request| request.status = Some(200));
        }
        assert_eq!(request_log.max_in_window(WINDOW), 3);
        assert_eq!(request_log.max_in_window(Duration::ZERO), 1);
        assert_eq!(request_log.log().len(), 5);
    }
}
