//! A reverse proxy for several simulators, one per account, because the real Harvest is one host for all accounts.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::response::Response;
use harvest_sim::Sim;

/// A request that reached the proxy.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub account: i64,
    pub path: String,
}

/// Serves until the test's runtime ends.
pub struct Front {
    base_url: String,
    proxy: Arc<Proxy>,
}

struct Proxy {
    origin: String,
    sims: Vec<Sim>,
    client: reqwest::Client,
    arrivals: Mutex<Vec<Arrival>>,
    prepared: Mutex<Vec<PreparedAnswer>>,
}

/// The answer to the next request whose path and query contain `path`, instead of the simulator's answer.
struct PreparedAnswer {
    path: String,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Body,
}

impl Front {
    pub async fn of(sims: impl IntoIterator<Item = &Sim>) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let proxy = Arc::new(Proxy {
            origin: origin.clone(),
            sims: sims.into_iter().cloned().collect(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            arrivals: Mutex::default(),
            prepared: Mutex::default(),
        });
        let app = axum::Router::new().fallback(forward).with_state(proxy.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base_url: format!("{origin}/v2"), proxy }
    }

    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.proxy.arrivals.lock().unwrap().clone()
    }

    /// Answers the next request whose path and query contain this.
    pub fn answer_once(
        &self,
        path: &str,
        status: u16,
        headers: &[(&'static str, &str)],
        body: impl Into<Body>,
    ) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let answer = PreparedAnswer { path: path.to_owned(), status, headers, body: body.into() };
        self.proxy.prepared.lock().unwrap().push(answer);
    }

    pub fn forget(&self) {
        self.proxy.arrivals.lock().unwrap().clear();
    }

    /// The times of the account's incremental requests for users.
    pub fn polls(&self, account: i64) -> Vec<Instant> {
        let polls = self.arrivals().into_iter();
        let polls = polls.filter(|arrival| arrival.account == account && arrival.path.contains("/users?"));
        polls.filter(|arrival| arrival.path.contains("updated_since")).map(|arrival| arrival.at).collect()
    }

    /// The most requests of all accounts together in any closed window of this length.
    pub fn max_requests_in_window(&self, window: Duration) -> usize {
        let arrivals = self.arrivals();
        let within = |first: Instant| {
            arrivals.iter().filter(|next| next.at >= first && next.at - first <= window).count()
        };
        arrivals.iter().map(|arrival| within(arrival.at)).max().unwrap_or(0)
    }
}

/// Forwards the request to the account's simulator. Links in the answer lead to the proxy.
async fn forward(State(proxy): State<Arc<Proxy>>, request: Request) -> Response {
    let account = request.headers()["Harvest-Account-Id"].to_str().unwrap().parse().unwrap();
    let path = request.uri().path_and_query().unwrap().to_string();
    proxy.arrivals.lock().unwrap().push(Arrival { at: Instant::now(), account, path: path.clone() });
    if let Some(prepared) = take_prepared(&proxy, &path) {
        let headers = prepared.headers.iter();
        let answer = headers.fold(Response::builder().status(prepared.status), |answer, (name, value)| {
            answer.header(*name, value)
        });
        return answer.body(prepared.body).unwrap();
    }
    let sim = proxy.sims.iter().find(|sim| sim.account_id() == account).unwrap();
    let upstream = sim.base_url().trim_end_matches("/v2");
    let request = proxy.client.get(format!("{upstream}{path}")).headers(request.headers().clone());
    let answer = request.send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for hop in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(hop);
    }
    let body = answer.text().await.unwrap().replace(upstream, &proxy.origin);
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

fn take_prepared(proxy: &Proxy, path: &str) -> Option<PreparedAnswer> {
    let mut prepared = proxy.prepared.lock().unwrap();
    let index = prepared.iter().position(|answer| path.contains(&answer.path))?;
    Some(prepared.remove(index))
}
