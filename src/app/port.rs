//! Binds the ports of the HTTP servers.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use super::failure::{Exit, Failure};

/// How long another process may use the port: the process that this one replaces stops within ten seconds.
const IN_USE_LIMIT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// `purpose` is what the server serves, and `key` the setting of the address.
pub(super) async fn bind(address: SocketAddr, purpose: &str, key: &str) -> Result<TcpListener, Failure> {
    let deadline = Instant::now() + IN_USE_LIMIT;
    let mut is_logged = false;
    loop {
        let error = match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => error,
        };
        let is_in_use = error.kind() == ErrorKind::AddrInUse;
        if !is_in_use || Instant::now() >= deadline {
            let exit = if is_in_use { Exit::Unavailable } else { Exit::Settings };
            let advice = format!(
                "cannot listen on {address} for {purpose} ({error}); set {key} to a free address, or to \"\""
            );
            return Err(Failure::new(exit, advice));
        }
        if !std::mem::replace(&mut is_logged, true) {
            let seconds = IN_USE_LIMIT.as_secs();
            tracing::warn!("another process listens on {address} ({key}); trying again for {seconds} s");
        }
        sleep(RETRY_INTERVAL).await;
    }
}
