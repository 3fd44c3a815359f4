//! Processes admitted requests: applies faults and computes the response.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::response::Response as HttpResponse;
use tokio_util::sync::CancellationToken;

use super::call::Call;
use super::fields::Fields;
use super::form::Form;
use super::response::Response;
use super::{AccountState, identity, respond, write};
use crate::faults::Replacement;
use crate::oauth::{Outcome, TokenLog};
use crate::sync::lock;

/// The response; `None` resets the connection.
type Processed = Option<HttpResponse>;

/// One admitted request.
pub(super) struct Processing {
    account_state: Arc<AccountState>,
    /// The request's number in the log.
    number: u64,
    stopping: CancellationToken,
    /// Cancelled if the client disconnects before the response. A request that is not a write ends at once if the
    /// client disconnects, because its handler is dropped.
    client_gone: CancellationToken,
}

impl Processing {
    pub fn new(account_state: Arc<AccountState>, number: u64, stopping: CancellationToken) -> Self {
        Self { account_state, number, stopping, client_gone: CancellationToken::new() }
    }

    pub async fn read(self, call: &Call) -> Processed {
        let respond = |hidden: &HashSet<i64>| {
            respond::respond(&self.account_state.world(), &self.account_state.base_url, call, hidden)
        };
        self.run_with_faults(call, respond, Response::refusal).await
    }

    /// Processes a write request on a separate task, because [`Fault::hold_request`](crate::Fault::hold_request)
    /// continues after the client disconnected.
    pub async fn write(self, call: Call, fields: Option<Fields>) -> Processed {
        let _gone_when_dropped = self.client_gone.clone().drop_guard();
        let task = tokio::spawn(async move {
            let origin = self.account_state.base_url.trim_end_matches("/v2");
            let respond = |_: &HashSet<i64>| {
                write::write(&mut self.account_state.world(), origin, &call, fields.as_ref())
            };
            self.run_with_faults(&call, respond, Response::refusal).await
        });
        task.await.unwrap_or(None)
    }

    /// Processes a token request. The request counts as in flight until this function returns or is dropped.
    pub async fn issue_tokens(self, call: &Call, form: &Form) -> Processed {
        let guard = TokenRequestGuard::of(&self.account_state.tokens, form);
        let respond = |_: &HashSet<i64>| {
            let (response, outcome) = identity::token(&mut self.account_state.world(), call, form);
            guard.set_outcome(outcome);
            response
        };
        self.run_with_faults(call, respond, identity::token_refusal).await
    }

    /// Processes a request to Harvest ID that is not a token request.
    pub async fn identify(self, call: &Call) -> Processed {
        let respond = |_: &HashSet<i64>| identity::respond(&mut self.account_state.world(), call);
        self.run_with_faults(call, respond, Response::refusal).await
    }

    async fn run_with_faults(
        &self,
        call: &Call,
        respond: impl FnOnce(&HashSet<i64>) -> Response,
        refusal: fn(u16) -> Response,
    ) -> Processed {
        let asked = format!("{} {}", call.method, call.logged_path());
        let injected = lock(&self.account_state.faults).take_matching(&asked, Instant::now());
        self.pause(injected.delay).await;
        for until in &injected.hold_request_until {
            tokio::select! {
                () = until.cancelled() => {}
                () = self.stopping.cancelled() => return None,
            }
        }
        if self.client_gone.is_cancelled() && injected.hold_request_until.is_empty() {
            return None;
        }
        let process = || {
            let response = respond(&injected.hidden);
            let status = response.status.as_u16();
            lock(&self.account_state.request_log)
                .update(self.number, |request| request.processed = Some(status));
            response
        };
        let mut response = match injected.replacement {
            None => process(),
            Some(replacement) => {
                if injected.replace_after_processing {
                    process();
                }
                match replacement {
                    Replacement::Reset => return None,
                    Replacement::Answer(answer) => return Some(answer()),
                    Replacement::Refusal(status) => refusal(status),
                    Replacement::Html { status, retry_after } => {
                        let now = lock(&self.account_state.world).clock.now();
                        Response::html_error(status, retry_after, now)
                    }
                }
            }
        };
        if response.status.is_success() {
            if !injected.edits.is_empty() {
                response.edit(&injected.edits);
            }
            response.edit_bytes(&injected.byte_edits);
        }
        for action in injected.before_response {
            action();
        }
        self.pause(injected.response_delay).await;
        for held in injected.hold_until {
            tokio::select! {
                () = held.cancelled() => {}
                () = self.stopping.cancelled() => {}
                () = self.client_gone.cancelled() => {}
            }
        }
        (!injected.lost).then(|| response.into_http(injected.truncate_body))
    }

    /// Returns early if the server stops or the client disconnects.
    async fn pause(&self, time: Duration) {
        if time.is_zero() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(time) => {}
            () = self.stopping.cancelled() => {}
            () = self.client_gone.cancelled() => {}
        }
    }
}

/// Marks a token request as in flight until this guard is dropped, also if the client disconnects.
struct TokenRequestGuard<'d> {
    log: &'d Mutex<TokenLog>,
    number: u64,
}

impl<'d> TokenRequestGuard<'d> {
    fn of(log: &'d Mutex<TokenLog>, form: &Form) -> Self {
        let shown = form.get("refresh_token").map(str::to_owned);
        let mut held = lock(log);
        let number = held.arrive(Instant::now(), form.grant(), shown);
        drop(held);
        Self { log, number }
    }

    fn set_outcome(&self, outcome: Option<Outcome>) {
        lock(self.log).set_outcome(self.number, outcome);
    }
}

impl Drop for TokenRequestGuard<'_> {
    fn drop(&mut self) {
        lock(self.log).finish();
    }
}
