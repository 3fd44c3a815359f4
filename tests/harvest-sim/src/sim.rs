//! The handle of a running simulator: starting and stopping, trouble, and the report.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::clock::{Clock, Stamp};
use crate::faults::Fault;
use crate::http::{self, Desk, House, World};
use crate::limit::{Host, Request};
use crate::oauth::Issuer;
use crate::options::Options;
use crate::state::Company;
use crate::sync::lock;

/// How long connections have to finish when the simulator stops.
const PATIENCE: Duration = Duration::from_secs(1);

/// A running Harvest. Clones are handles of the same one, which stops with the last of them.
#[derive(Clone)]
pub struct Sim {
    pub(crate) desk: Arc<Desk>,
    /// How much later the changes made through this handle show.
    pub(crate) late: Duration,
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

    /// Serves the company at this address, and Harvest ID on a free port beside it.
    pub async fn start_at(address: SocketAddr, company: Company, options: Options) -> io::Result<Self> {
        Self::start_at_both(address, (address.ip(), 0).into(), company, options).await
    }

    /// Serves the company at one address and Harvest ID at another: two origins, as they are two hosts.
    pub async fn start_at_both(
        address: SocketAddr,
        identity: SocketAddr,
        company: Company,
        options: Options,
    ) -> io::Result<Self> {
        Self::serve(address, identity, company, Vec::new(), &options).await.map(|(sim, _)| sim)
    }

    /// Serves several companies at one address, as Harvest does: each has an account id of its own, its own limit and
    /// its own clock, and a handle in the order given. Harvest ID beside them knows the first.
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
        let desk = |company| {
            let (clock, issuer, options) = (Clock::default(), Issuer::default(), options.clone());
            Arc::new(Desk {
                base_url: format!("http://{address}/v2"),
                identity_url: format!("http://{identity_address}"),
                world: Mutex::new(World { company, clock, issuer, options }),
                gate: Mutex::default(),
                tokens: Mutex::default(),
                faults: Mutex::default(),
            })
        };
        let first = desk(first);
        let others: Vec<_> = others.into_iter().map(desk).collect();
        let house = Arc::new(House::of(first.clone(), &others));
        let stopping = CancellationToken::new();
        let tasks = [(api, Host::Api), (identity, Host::Identity)].map(|(listener, host)| {
            tokio::spawn(http::serve(listener, host, house.clone(), stopping.clone()))
        });
        let server = Arc::new(Server {
            address,
            tasks: Mutex::new(tasks.into()),
            _stop_when_dropped: stopping.clone().drop_guard(),
            stopping,
        });
        let handle = |desk| Self { desk, late: Duration::ZERO, server: server.clone() };
        Ok((handle(first), others.into_iter().map(handle).collect()))
    }

    /// Stops serving; when this returns, connections are refused.
    pub async fn stop(&self) {
        self.server.stopping.cancel();
        let tasks = std::mem::take(&mut *lock(&self.server.tasks));
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        // A client that will not let go of its connection does not hold us up.
        let _ = tokio::time::timeout(PATIENCE, all).await;
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// What a client is configured with: `http://127.0.0.1:PORT/v2`.
    pub fn base_url(&self) -> &str {
        &self.desk.base_url
    }

    /// Where Harvest ID is, an origin of its own: `http://127.0.0.1:PORT`.
    pub fn identity_url(&self) -> &str {
        &self.desk.identity_url
    }

    /// What `Harvest-Account-Id` must say.
    pub fn account_id(&self) -> i64 {
        lock(&self.desk.world).company.account_id()
    }

    /// The personal token that is let in.
    pub fn token(&self) -> String {
        lock(&self.desk.world).company.token().to_owned()
    }

    /// Changes the switches of the running simulator.
    pub fn configure(&self, change: impl FnOnce(&mut Options)) {
        change(&mut lock(&self.desk.world).options);
    }

    /// Shows another company at the same address, to the same account id and token: a test system in the place of the
    /// true one, or an account that was merged. Returns the company that was shown before.
    pub fn replace_company(&self, company: Company) -> Company {
        let shown = &mut lock(&self.desk.world).company;
        let company = company.with_account_id(shown.account_id()).with_token(shown.token());
        std::mem::replace(shown, company)
    }

    /// Lets something go wrong.
    pub fn inject(&self, fault: Fault) {
        lock(&self.desk.faults).inject(fault, Instant::now());
    }

    /// Ends all trouble.
    pub fn clear_faults(&self) {
        lock(&self.desk.faults).clear();
    }

    /// A handle whose verbs are stamped when they are called, and show so much later by the simulator's
    /// clock: until then a new record is in no list and not found by its id, and a changed or deleted one is
    /// what it was. Naming a record that does not show yet is no mistake; it keeps waiting for its creation.
    ///
    /// A version of a record holds all that was done to it before: whichever shows first, the last one stays,
    /// and a change that shows at once brings those along that waited.
    ///
    /// ```
    /// # async fn story(sim: harvest_sim::Sim) {
    /// let jane = sim.later(std::time::Duration::from_secs(90)).hire("Jane", "Doe");
    /// assert!(!sim.user_ids().contains(&jane));
    /// sim.advance_clock(std::time::Duration::from_secs(90));
    /// assert!(sim.user_ids().contains(&jane));
    /// # }
    /// ```
    #[must_use]
    pub fn later(&self, by: Duration) -> Self {
        Self { late: by, ..self.clone() }
    }

    /// Shows at once everything that was to show later.
    pub fn surface_all(&self) {
        lock(&self.desk.world).company.surface(DateTime::<Utc>::MAX_UTC);
    }

    /// The simulator's time.
    pub fn now(&self) -> Stamp {
        lock(&self.desk.world).clock.now()
    }

    /// Moves the simulator's clock ahead.
    pub fn advance_clock(&self, by: Duration) {
        self.shift_clock(TimeDelta::from_std(by).unwrap_or(TimeDelta::MAX));
    }

    /// Moves the simulator's clock, ahead or back. The rate limit keeps the real time.
    pub fn shift_clock(&self, by: TimeDelta) {
        lock(&self.desk.world).clock.shift(by);
    }

    /// Stops the simulator's clock, so that what happens next happens in the same second.
    pub fn freeze_clock(&self) {
        lock(&self.desk.world).clock.freeze();
    }

    /// Lets the simulator's clock go with the machine's again.
    pub fn thaw_clock(&self) {
        lock(&self.desk.world).clock.thaw();
    }

    /// Every request to either host since the start or the last clearing, in the order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        lock(&self.desk.gate).log()
    }

    /// Those of the [`requests`](Self::requests) to the API that are no GET, with their fields, refused ones included: all
    /// that a client tried to change.
    pub fn writes(&self) -> Vec<Request> {
        self.requests().into_iter().filter(|it| it.host == Host::Api && it.method != "GET").collect()
    }

    /// Forgets the requests seen so far; the rate limit does not.
    pub fn clear_requests(&self) {
        lock(&self.desk.gate).clear_log();
    }

    /// The most requests, let through or refused, that arrived in any closed window of this length. Those to
    /// Harvest ID are among them only with [`Options::identity_requests_count`].
    pub fn most_in_any_window(&self, window: Duration) -> usize {
        lock(&self.desk.gate).most_in_any(window)
    }
}
