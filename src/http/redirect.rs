//! The OAuth2 redirect address of `rosterd auth login`. It listens on the loopback interface and serves one response.

use std::future::IntoFuture;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Html;
use axum::routing::get;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The OAuth2 application at Harvest must be registered with this path.
const PATH: &str = "/callback";
/// How long the last page may take to reach the browser.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct Redirect {
    listener: TcpListener,
    url: Url,
}

#[derive(Deserialize)]
struct Parameters {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
}

struct Expected {
    state: String,
    result: mpsc::Sender<Result<String, String>>,
}

impl Redirect {
    /// Listens on the loopback address, which only users of this machine can reach.
    ///
    /// # Errors
    /// If the port is in use.
    pub(crate) async fn bind(port: u16) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let url = format!("http://{}{PATH}", listener.local_addr()?);
        Ok(Self { listener, url: url.parse().map_err(io::Error::other)? })
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// Waits for the authorization code. `state` must be the state of the consent address.
    ///
    /// # Errors
    /// Harvest's error code if the user did not consent, such as `access_denied`.
    pub(crate) async fn code(self, state: String) -> Result<String, String> {
        let (sender, mut result) = mpsc::channel(1);
        let expected = Arc::new(Expected { state, result: sender });
        let router = Router::new().route(PATH, get(receive)).with_state(expected);
        let stop = CancellationToken::new();
        let serve = axum::serve(self.listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serve = tokio::spawn(serve.into_future());
        // The sender is dropped if the server fails.
        let code = result.recv().await.unwrap_or_else(|| Err("no response".to_owned()));
        stop.cancel();
        let _ = tokio::time::timeout(SHUTDOWN_TIMEOUT, serve).await;
        code
    }
}

async fn receive(
    State(expected): State<Arc<Expected>>,
    Query(parameters): Query<Parameters>,
) -> (StatusCode, Html<&'static str>) {
    // Any page can send a browser here. Only Harvest's response to this login has its state.
    if parameters.state.as_deref() != Some(&expected.state) {
        return (
            StatusCode::BAD_REQUEST,
            Html(
                "This redirect does not belong to the login that rosterd is waiting for. rosterd is still waiting.",
            ),
        );
    }
    // Error codes consist of letters and underscores. Other text is not shown, because any page can send it.
    let is_code = |text: &String| text.len() < 64 && text.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let code = match (parameters.code, parameters.error) {
        (Some(code), None) => Ok(code),
        (_, error) => Err(error.filter(is_code).unwrap_or_else(|| "no reason given".to_owned())),
    };
    let page = if code.is_ok() {
        "rosterd received the authorization and continues in the terminal. You can close this page."
    } else {
        "rosterd was not authorized; nothing was changed. You can close this page."
    };
    // Fails if a code is there already.
    let _ = expected.result.try_send(code);
    (StatusCode::OK, Html(page))
}
