//! Compares the simulator, over real HTTP, with documented and recorded requests and responses.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed setup step fails the test")]

mod access;
mod checks;
mod consent;
mod faults;
mod lists;
mod lost_responses;
mod paging;
mod program;
mod rates;
mod records;
mod roles;
mod throttle;
mod tokens;
mod visibility_delay;
mod write_faults;
mod write_limits;
mod write_log;
mod writes;
mod wrong_responses;

use std::sync::Once;

use harvest_sim::{Company, Options, Sim};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

/// A simulator and an HTTP client for it.
struct TestClient {
    sim: Sim,
    http: Client,
}

impl TestClient {
    async fn open(company: Company, options: Options) -> Self {
        Self::at(Sim::start(company, options).await.unwrap())
    }

    fn at(sim: Sim) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| {
            let _ = rustls::crypto::ring::default_provider().install_default();
        });
        let http = Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { sim, http }
    }

    /// A company with one administrator, without a rate limit.
    async fn quiet() -> Self {
        Self::open(Company::new(), Options { limit: None, ..Options::default() }).await
    }

    fn url(&self, path: &str) -> String {
        if path.starts_with("http") { path.to_owned() } else { format!("{}{path}", self.sim.base_url()) }
    }

    /// A GET request without headers.
    fn bare(&self, path: &str) -> RequestBuilder {
        self.http.get(self.url(path))
    }

    /// A GET request with all required headers.
    fn ask(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, self.url(path))
            .header("User-Agent", "tests (tests@example.com)")
            .header("Harvest-Account-Id", self.sim.account_id())
            .bearer_auth(self.sim.token())
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(path).send().await.unwrap()
    }

    async fn text(&self, path: &str) -> String {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.text().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        serde_json::from_str(&self.text(path).await).unwrap()
    }

    /// Reads all pages of a list by following `links.next`.
    async fn read_all_pages(&self, path: &str) -> Vec<Value> {
        let (mut pages, mut next) = (Vec::new(), Some(path.to_owned()));
        while let Some(path) = next {
            let page = self.json(&path).await;
            next = page["links"]["next"].as_str().map(str::to_owned);
            pages.push(page);
        }
        pages
    }
}

/// The ids of the records, in the order of the list.
fn ids(pages: &[Value], resource: &str) -> Vec<i64> {
    pages
        .iter()
        .flat_map(|page| page[resource].as_array().unwrap())
        .map(|it| it["id"].as_i64().unwrap())
        .collect()
}

/// The keys of the first object in `text` after `start`, in their order, without nested keys.
fn keys(text: &str, start: &str) -> Vec<String> {
    let from = text.find(start).unwrap() + start.len();
    let (mut depth, mut keys, mut rest) = (0, Vec::new(), text[from..].chars().peekable());
    while let Some(c) = rest.next() {
        match c {
            '{' | '[' => depth += 1,
            '}' | ']' => {
                depth -= 1;
                if depth == 0 {
                    break;
                }
            }
            '"' => {
                let word: String = rest.by_ref().take_while(|&c| c != '"').collect();
                if depth == 1 && rest.peek() == Some(&':') {
                    keys.push(word);
                }
            }
            _ => {}
        }
    }
    keys
}

fn header<'a>(response: &'a Response, name: &str) -> &'a str {
    response.headers().get(name).unwrap_or_else(|| panic!("{name} is missing")).to_str().unwrap()
}
