//! One door for several simulators, each of them an account: as Harvest is one host for all.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use axum::response::Response;
use harvest_sim::Sim;

/// A request as it came through the door.
#[derive(Clone, Debug)]
pub struct Arrival {
    pub at: Instant,
    pub account: i64,
    pub path: String,
}

/// Open as long as the test's runtime lives.
pub struct Front {
    base_url: String,
    door: Arc<Door>,
}

struct Door {
    origin: String,
    sims: Vec<Sim>,
    client: reqwest::Client,
    arrivals: Mutex<Vec<Arrival>>,
    instead: Mutex<Vec<Instead>>,
}

/// What the next request for something is answered instead.
struct Instead {
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
        let door = Arc::new(Door {
            origin: origin.clone(),
            sims: sims.into_iter().cloned().collect(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            arrivals: Mutex::default(),
            instead: Mutex::default(),
        });
        let app = axum::Router::new().fallback(pass).with_state(door.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { base_url: format!("{origin}/v2"), door }
    }

    pub fn base_url(&self) -> &str {
        &self.base_url
    }

    pub fn arrivals(&self) -> Vec<Arrival> {
        self.door.arrivals.lock().unwrap().clone()
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
        let instead = Instead { path: path.to_owned(), status, headers, body: body.into() };
        self.door.instead.lock().unwrap().push(instead);
    }

    pub fn forget(&self) {
        self.door.arrivals.lock().unwrap().clear();
    }

    /// When the account was asked for what changed.
    pub fn polls(&self, account: i64) -> Vec<Instant> {
        let polls = self.arrivals().into_iter();
        let polls = polls.filter(|it| it.account == account && it.path.contains("/users?"));
        polls.filter(|it| it.path.contains("updated_since")).map(|it| it.at).collect()
    }

    /// The most requests of all accounts together in any closed window of this length.
    pub fn most_in_any_window(&self, window: Duration) -> usize {
        let arrivals = self.arrivals();
        let within =
            |first: Instant| arrivals.iter().filter(|it| it.at >= first && it.at - first <= window).count();
        arrivals.iter().map(|it| within(it.at)).max().unwrap_or(0)
    }
}

/// Hands the request to the account's simulator, and its answer back with links that lead here.
async fn pass(State(door): State<Arc<Door>>, request: Request) -> Response {
    let account = request.headers()["Harvest-Account-Id"].to_str().unwrap().parse().unwrap();
    let path = request.uri().path_and_query().unwrap().to_string();
    door.arrivals.lock().unwrap().push(Arrival { at: Instant::now(), account, path: path.clone() });
    if let Some(instead) = instead(&door, &path) {
        let headers = instead.headers.iter();
        let answer = headers.fold(Response::builder().status(instead.status), |answer, (name, value)| {
            answer.header(*name, value)
        });
        return answer.body(instead.body).unwrap();
    }
    let sim = door.sims.iter().find(|sim| sim.account_id() == account).unwrap();
    let there = sim.base_url().trim_end_matches("/v2");
    let asked = door.client.get(format!("{there}{path}")).headers(request.headers().clone());
    let answer = asked.send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    for hop in [CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(hop);
    }
    let body = answer.text().await.unwrap().replace(there, &door.origin);
    let mut response = Response::new(Body::from(body));
    (*response.status_mut(), *response.headers_mut()) = (status, headers);
    response
}

fn instead(door: &Door, path: &str) -> Option<Instead> {
    let mut instead = door.instead.lock().unwrap();
    let at = instead.iter().position(|it| path.contains(&it.path))?;
    Some(instead.remove(at))
}
