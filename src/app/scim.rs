//! Wires SCIM: settings → tokens, listener, database.

use std::path::Path;

use futures::future::{OptionFuture, join};
use tokio_util::sync::CancellationToken;

use super::context::App;
use super::failure::{Exit, Failure};
use super::{REVISION, VERSION, port, systemd};
use crate::http;
use crate::http::scim::{ScimOptions, ScimServer, Tokens};
use crate::store::local::LocalPostgres;
use crate::store::{ConnectOptions, Store};
use crate::telemetry::instruments::Metrics;

/// Of the connections of `run`'s SCIM: two for requests, and one on which it listens for finished writes. The store keeps
/// two more, which SCIM does not use.
const CONNECTIONS: u32 = 5;

impl App {
    /// SCIM next to the daemon, with its own connections, so that requests and sync cycles do not wait for each other.
    /// `None` if `scim.listen` is empty.
    pub(super) async fn scim_in_daemon(&self) -> Result<Option<ScimServer>, Failure> {
        let url = self.settings.database.url.as_ref().or(self.local.as_ref().map(LocalPostgres::url));
        let (Some(_), Some(url)) = (self.settings.scim.listen, url) else { return Ok(None) };
        let options = ConnectOptions {
            max_connections: CONNECTIONS,
            prepared_statements: self.settings.database.prepared_statements,
            statement_timeout: self.settings.database.statement_timeout,
        };
        self.scim_server(Store::new(url, &options)?).await.map(Some)
    }

    /// Serves SCIM without the daemon until `stop` is cancelled.
    ///
    /// # Errors
    /// For settings, a token file or a database that SCIM cannot use.
    pub(crate) async fn scim(&self, stop: CancellationToken) -> Result<(), Failure> {
        self.store.require_suitable().await?;
        let missing = self.store.scim_missing().await?;
        if !missing.is_empty() {
            let advice = format!(
                "the database user may not use {}, or they do not exist; run `rosterd migrate` as the schemas' owner, then \
                 deploy/roles.sql, and connect as a member of roster_scim",
                missing.join(", ")
            );
            return Err(Failure::new(Exit::Settings, advice));
        }
        let server = self.scim_server(self.store.clone()).await?;
        let probes = match self.settings.http.listen {
            Some(address) => Some(port::bind(address, "/livez and /metrics", "http.listen").await?),
            None => None,
        };
        let serving = server.run().map_err(|error| Failure::new(Exit::Internal, error))?;
        let probes =
            probes.map(|listener| http::serve_scim_probes(listener, Metrics::install(VERSION, REVISION)));
        tracing::info!(
            event = "scim.started",
            listen = self.settings.scim.listen.map(tracing::field::display),
            database = self.store.target().host(),
            "started"
        );
        systemd::ready();
        stop.run_until_cancelled(Box::pin(join(serving, OptionFuture::from(probes)))).await;
        Ok(())
    }

    async fn scim_server(&self, store: Store) -> Result<ScimServer, Failure> {
        let (options, tokens) = self.scim_options()?;
        let listen = self.settings.scim.listen.ok_or_else(|| missing("scim.listen"))?;
        let listener = port::bind(listen, "SCIM", "scim.listen").await?;
        Ok(ScimServer::new(listener, store, options, tokens))
    }

    /// The options of SCIM, and the tokens of the file.
    pub(crate) fn scim_options(&self) -> Result<(ScimOptions, Tokens), Failure> {
        let (scim, write) = (&self.settings.scim, &self.settings.write);
        let public_url = scim.public_url.as_ref().ok_or_else(|| missing("scim.public_url"))?;
        let tokens_file = scim.tokens_file.as_ref().ok_or_else(|| missing("scim.tokens_file"))?;
        let tokens = Tokens::read(tokens_file).map_err(|fault| Failure::new(Exit::Settings, fault))?;
        warn_of_exposed(tokens_file);
        let options = ScimOptions {
            public_url: public_url.as_str().trim_end_matches('/').to_owned(),
            tokens_file: tokens_file.clone(),
            on_delete: scim.on_delete,
            mode: write.rules.mode,
            with_roles: scim.with_roles,
            patience: write.patience,
        };
        Ok((options, tokens))
    }
}

fn missing(key: &str) -> Failure {
    Failure::new(
        Exit::Settings,
        format!("{key} is empty; SCIM needs scim.listen, scim.public_url and scim.tokens_file"),
    )
}

fn warn_of_exposed(file: &Path) {
    if Tokens::is_exposed(file) {
        tracing::warn!(
            "scim.tokens_file names {}, which every user of this machine may read; run `chmod o= FILE` on it",
            file.display()
        );
    }
}
