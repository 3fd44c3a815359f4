//! Where a browser comes back to after a person has said yes or no at Harvest: for one answer, on this machine only.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use url::Url;

/// The path; the whole address is what an application is registered with.
const PATH: &str = "/callback";
/// How long the browser's page may take to reach it.
const FAREWELL: Duration = Duration::from_secs(2);

/// Waits for the browser.
pub struct Redirect {
    listener: TcpListener,
    url: Url,
}

/// What the browser brings.
#[derive(Deserialize)]
struct Brought {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

struct Waiting {
    state: String,
    answer: Mutex<Option<oneshot::Sender<Result<String, String>>>>,
}

impl Redirect {
    /// Listens on the loopback address, where nobody but this machine's people can answer.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let url = format!("http://{}{PATH}", listener.local_addr()?);
        Ok(Self { listener, url: url.parse().map_err(io::Error::other)? })
    }

    /// Its address.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The code that proves the consent.
    ///
    /// # Errors
    /// In Harvest's word where there is none: `access_denied` when the person said no.
    pub async fn code(self, state: String) -> Result<String, String> {
        let (sender, answer) = oneshot::channel();
        let waiting = Arc::new(Waiting { state, answer: Mutex::new(Some(sender)) });
        let router = Router::new().route(PATH, get(brought)).with_state(waiting);
        let (over, is_over) = oneshot::channel::<()>();
        let serve = axum::serve(self.listener, router).with_graceful_shutdown(async {
            // That the sender is gone is the signal.
            let _ = is_over.await;
        });
        let serve = async move { serve.await };
        tokio::pin!(serve);
        let code = tokio::select! {
            code = answer => code.unwrap_or_else(|_| Err("no answer".to_owned())),
            _ = &mut serve => Err("no answer".to_owned()),
        };
        drop(over);
        let _ = tokio::time::timeout(FAREWELL, serve).await;
        code
    }
}

async fn brought(
    State(waiting): State<Arc<Waiting>>,
    Query(brought): Query<Brought>,
) -> (StatusCode, Html<&'static str>) {
    // Anybody can send a browser here; only Harvest's answer to our question knows its state.
    if brought.state.as_deref() != Some(&waiting.state) {
        return (StatusCode::BAD_REQUEST, Html("This is no answer to rosterd's question. It waits on."));
    }
    // Its words are letters and underscores; anything else is not repeated.
    let is_word = |word: &String| word.len() < 64 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let code = match (brought.code, brought.error) {
        (Some(code), None) => Ok(code),
        (_, error) => Err(error.filter(is_word).unwrap_or_else(|| "no reason given".to_owned())),
    };
    let page = if code.is_ok() {
        "rosterd has what it needs: its terminal tells the rest. You can close this page."
    } else {
        "rosterd may not: nothing was changed. You can close this page."
    };
    if let Some(answer) = waiting.answer.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Fails where nobody waits any more.
        let _ = answer.send(code);
    }
    (StatusCode::OK, Html(page))
}
