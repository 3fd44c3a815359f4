//! What all requests share: the database, the settings, the tokens and the limits.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::Instant;
use uuid::Uuid;

use super::tokens::{Token, Tokens};
use crate::roster::AccountId;
use crate::roster::write_policy::{OnDelete, WriteMode};
use crate::store::Store;

/// Requests of one token at a time. A waiting write counts.
const MAX_IN_FLIGHT: usize = 64;
/// So many refused requests of one peer within [`FAILURE_WINDOW`] are logged as a warning.
const MANY_FAILURES: u32 = 20;
const FAILURE_WINDOW: Duration = Duration::from_mins(1);
/// Peers that are counted within one window.
const MAX_PEERS: usize = 1024;
/// Finished writes that a slow waiter may miss; it then asks the database.
const MISSED_WRITES: usize = 256;
/// Names of ignored attributes that are remembered, and so logged once.
const MAX_NOTICED: usize = 1000;

#[derive(Clone, Debug)]
pub(crate) struct ScimOptions {
    /// Has no slash at its end.
    pub public_url: String,
    pub tokens_file: PathBuf,
    pub on_delete: OnDelete,
    pub mode: WriteMode,
    pub with_roles: bool,
    /// How long a request waits for its writes.
    pub patience: Duration,
}

pub(super) struct Service {
    pub store: Store,
    pub options: ScimOptions,
    pub written: broadcast::Sender<Uuid>,
    tokens: Mutex<Arc<Tokens>>,
    in_flight: Mutex<BTreeMap<(i64, String), Arc<Semaphore>>>,
    failures: Mutex<(Instant, HashMap<IpAddr, u32>)>,
    noticed: Mutex<BTreeSet<(String, String)>>,
}

impl Service {
    pub fn new(store: Store, options: ScimOptions, tokens: Tokens) -> Self {
        Self {
            store,
            options,
            written: broadcast::Sender::new(MISSED_WRITES),
            tokens: Mutex::new(Arc::new(tokens)),
            in_flight: Mutex::default(),
            failures: Mutex::new((Instant::now(), HashMap::new())),
            noticed: Mutex::default(),
        }
    }

    /// Reads the file of tokens again. If it is wrong, the tokens stay.
    pub fn reload_tokens(&self) {
        match Tokens::read(&self.options.tokens_file) {
            Ok(tokens) => {
                tracing::info!(
                    event = "scim.tokens_read",
                    tokens = tokens.len(),
                    "read scim.tokens_file again"
                );
                *self.tokens.lock() = Arc::new(tokens);
            }
            Err(problem) => tracing::error!(
                event = "scim.tokens_refused",
                "cannot read scim.tokens_file again, so the tokens stay as they are: {problem}"
            ),
        }
    }

    /// The token of a request for this account.
    pub fn authenticate(&self, account: Option<AccountId>, headers: &HeaderMap) -> Option<Token> {
        let header = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let (scheme, presented) = header.split_once(' ').unwrap_or_default();
        let tokens = self.tokens.lock().clone();
        let found = tokens.find(account, presented.trim());
        found.filter(|_| scheme.eq_ignore_ascii_case("bearer")).cloned()
    }

    /// Counts a request without a valid token. Many from one peer are logged once a minute.
    pub fn count_failure(&self, peer: IpAddr) {
        let mut failures = self.failures.lock();
        if failures.0.elapsed() >= FAILURE_WINDOW || failures.1.len() >= MAX_PEERS {
            *failures = (Instant::now(), HashMap::new());
        }
        let count = failures.1.entry(peer).or_default();
        *count += 1;
        if *count == MANY_FAILURES {
            tracing::warn!(
                event = "scim.unauthorized",
                %peer,
                "{MANY_FAILURES} SCIM requests without a valid token arrived within a minute; check the directory's token"
            );
        }
    }

    /// `None` if too many requests of the token are in flight.
    pub fn enter(&self, token: &Token) -> Option<OwnedSemaphorePermit> {
        let key = (token.account.0, token.name.clone());
        let mut in_flight = self.in_flight.lock();
        let semaphore = in_flight.entry(key).or_insert_with(|| Arc::new(Semaphore::new(MAX_IN_FLIGHT)));
        semaphore.clone().try_acquire_owned().ok()
    }

    /// Logs the names of ignored attributes, once for each token.
    pub fn notice_ignored(&self, token: &Token, names: &BTreeSet<String>) {
        let mut noticed = self.noticed.lock();
        for name in names {
            if noticed.len() < MAX_NOTICED && noticed.insert((token.name.clone(), name.clone())) {
                tracing::info!(
                    event = "scim.attribute_ignored",
                    account_id = token.account.0,
                    token = token.name,
                    attribute = name,
                    "rosterd ignores an attribute that a directory sends; remove it from the directory's mapping"
                );
            }
        }
    }
}
