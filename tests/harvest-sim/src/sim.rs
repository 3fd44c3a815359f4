//! The handle of a running simulator: start, stop, faults and recorded requests.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::{Clock, Timestamp};
use crate::faults::Fault;
use crate::http::{self, AccountState, Accounts, World};
use crate::oauth::Issuer;
use crate::options::Options;
use crate::request_log::{Host, Request};
use crate::state::Company;
use crate::sync::lock;

/// The time for open connections to finish when the simulator stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle of a running simulator. Clones refer to the same server, which stops when the last clone is dropped.
#[derive(Clone)]
pub struct Sim {
    pub(crate) account_state: Arc<AccountState>,
    /// The delay before changes through this handle become visible.
    pub(crate) visibility_delay: Duration,
    server: Arc<Server>,
}

struct Server {
    address: SocketAddr,
    tasks: Mutex<Vec<JoinHandle<()>>>,
    stopping: CancellationToken,
    _stop_when_dropped: DropGuard,
}

impl Sim {
    /// Serves the company on free ports of the loopback interface.
    pub async fn start(company: Company, options: Options) -> io::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), company, options).await
    }

    /// Serves the company at this address, and Harvest ID on a free port of the same interface.
    pub async fn start_at(address: SocketAddr, company: Company, options: Options) -> io::Result<Self> {
        Self::start_on(address, (address.ip(), 0).into(), company, options).await
    }

    /// Serves the company at one address and Harvest ID at another. Like Harvest's two hosts, they are two origins.
    pub async fn start_on(
        address: SocketAddr,
        identity: SocketAddr,
        company: Company,
        options: Options,
    ) -> io::Result<Self> {
        Self::serve(address, identity, company, Vec::new(), &options).await.map(|(sim, _)| sim)
    }

    /// Serves several companies at one address, as Harvest does. The companies need different account ids. Each has
    /// a separate rate limit, clock and handle; the handles are in the order of the companies. Harvest ID serves
    /// only the first company.
    pub async fn start_many(
        first: Company,
        others: impl IntoIterator<Item = Company>,
        options: &Options,
    ) -> io::Result<Vec<Self>> {
        let any = (Ipv4Addr::LOCALHOST, 0).into();
        let (first, mut sims) = Self::serve(any, any, first, others.into_iter().collect(), options).await?;
        sims.insert(0, first);
        Ok(sims)
    }

    async fn serve(
        address: SocketAddr,
        identity: SocketAddr,
        first: Company,
        others: Vec<Company>,
        options: &Options,
    ) -> io::Result<(Self, Vec<Self>)> {
        let (api, identity) = (TcpListener::bind(address).await?, TcpListener::bind(identity).await?);
        let (address, identity_address) = (api.local_addr()?, identity.local_addr()?);
        let account_state = |company| {
            let (clock, issuer, options) = (Clock::default(), Issuer::default(), options.clone());
            Arc::new(AccountState {
                base_url: format!("http://{address}/v2"),
                identity_url: format!("http://{identity_address}"),
                world: Mutex::new(World { company, clock, issuer, options }),
                request_log: Mutex::default(),
                tokens: Mutex::default(),
                faults: Mutex::default(),
            })
        };
        let first = account_state(first);
        let others: Vec<_> = others.into_iter().map(account_state).collect();
        let accounts = Arc::new(Accounts::of(first.clone(), &others));
        let stopping = CancellationToken::new();
        let tasks = [(api, Host::Api), (identity, Host::Identity)].map(|(listener, host)| {
            tokio::spawn(http::serve(listener, host, accounts.clone(), stopping.clone()))
        });
        let server = Arc::new(Server {
            address,
            tasks: Mutex::new(tasks.into()),
            _stop_when_dropped: stopping.clone().drop_guard(),
            stopping,
        });
        let handle =
            |account_state| Self { account_state, visibility_delay: Duration::ZERO, server: server.clone() };
        Ok((handle(first), others.into_iter().map(handle).collect()))
    }

    /// Stops the server. When this returns, connections are refused.
    pub async fn stop(&self) {
        self.server.stopping.cancel();
        let tasks = std::mem::take(&mut *lock(&self.server.tasks));
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        // A client that keeps its connection open must not block the stop.
        let _ = tokio::time::timeout(STOP_TIMEOUT, all).await;
    }

    /// The address of the API listener.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The base address of the API: `http://127.0.0.1:PORT/v2`.
    pub fn base_url(&self) -> &str {
        &self.account_state.base_url
    }

    /// The base address of Harvest ID: `http://127.0.0.1:PORT`, with another port than the API.
    pub fn identity_url(&self) -> &str {
        &self.account_state.identity_url
    }

    /// The value of `Harvest-Account-Id`.
    pub fn account_id(&self) -> i64 {
        lock(&self.account_state.world).company.account_id()
    }

    /// The personal access token.
    pub fn token(&self) -> String {
        lock(&self.account_state.world).company.token().to_owned()
    }

    /// Changes the options of the running simulator.
    pub fn configure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.account_state.world).options);
    }

    /// Replaces the company and keeps the address, the account id and the token. Use it to simulate a test system in
    /// place of the production system, or merged accounts. Returns the previous company.
    pub fn replace_company(&self, company: Company) -> Company {
        let shown = &mut lock(&self.account_state.world).company;
        let company = company.with_account_id(shown.account_id()).with_token(shown.token());
        std::mem::replace(shown, company)
    }

    /// Injects a fault.
    pub fn inject(&self, fault: Fault) {
        lock(&self.account_state.faults).inject(fault, Instant::now());
    }

    /// Removes all injected faults.
    pub fn clear_faults(&self) {
        lock(&self.account_state.faults).clear();
    }

    /// A handle for delayed visibility. A change gets the current time but becomes visible only after the delay, by
    /// the simulator's clock. Until then, a new record is in no list and its id gets a 404. Changed and deleted
    /// records keep their old state.
    ///
    /// The functions accept records that are not visible yet. A change of such a record becomes visible with its
    /// creation at the earliest.
    ///
    /// Each version of a record contains all earlier changes. The last change always wins, and an immediate change
    /// also applies the pending changes of the record.
    ///
    /// ```
    /// # async fn story(sim: harvest_sim::Sim) {
    /// let jane = sim.with_visibility_delay(std::time::Duration::from_secs(90)).create_user("Jane", "Doe");
    /// assert!(!sim.user_ids().contains(&jane));
    /// sim.advance_clock(std::time::Duration::from_secs(90));
    /// assert!(sim.user_ids().contains(&jane));
    /// # }
    /// ```
    #[must_use]
    pub fn with_visibility_delay(&self, by: Duration) -> Self {
        Self { visibility_delay: by, ..self.clone() }
    }

    /// Makes all delayed changes visible now.
    pub fn show_pending_changes(&self) {
        lock(&self.account_state.world).company.apply_pending(DateTime::<Utc>::MAX_UTC);
    }

    /// The simulator's time.
    pub fn now(&self) -> Timestamp {
        lock(&self.account_state.world).clock.now()
    }

    /// Moves the simulator's clock forward.
    pub fn advance_clock(&self, by: Duration) {
        self.shift_clock(TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX));
    }

    /// Moves the simulator's clock forward or back. The rate limit uses the system's monotonic clock.
    pub fn shift_clock(&self, by: TimeDelta) {
        lock(&self.account_state.world).clock.shift(by);
    }

    /// Stops the simulator's clock, so that the next changes happen in the same second.
    pub fn freeze_clock(&self) {
        lock(&self.account_state.world).clock.freeze();
    }

    /// All requests to both hosts since the start or the last `clear_requests`, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.account_state.request_log).log()
    }

    /// The requests to the API with a method other than GET, with their fields, since the start or the last
    /// [`take_writes`](Self::take_writes). Refused requests are included. `clear_requests` keeps these requests.
    pub fn writes(&self) -> Vec<Request> {
        lock(&self.account_state.request_log).writes()
    }

    /// Returns the [`writes`](Self::writes) and removes them. A test that expects write requests takes and compares
    /// them, so that a final [`expect_no_writes`](Self::expect_no_writes) finds only unexpected ones.
    pub fn take_writes(&self) -> Vec<Request> {
        lock(&self.account_state.request_log).take_writes()
    }

    /// Checks that the client sent no request to the API with a method other than GET.
    ///
    /// # Panics
    /// If there was such a request, even a refused one.
    #[track_caller]
    pub fn expect_no_writes(&self) {
        let writes = self.writes();
        assert!(writes.is_empty(), "the client sent write requests: {writes:#?}");
    }

    /// Clears the request log. The rate limit still counts the requests.
    pub fn clear_requests(&self) {
        lock(&self.account_state.request_log).clear_log();
    }

    /// The maximum number of requests, admitted or refused, in any closed window of this length. Requests to
    /// Harvest ID do not count.
    pub fn max_requests_in_window(&self, window: Duration) -> usize {
        lock(&self.account_state.request_log).max_in_window(window)
    }
}
