//! Creates the endpoints of webhooks from the settings, and their tasks.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::ExposeSecret;
use tokio::sync::Notify;

use super::context::App;
use super::failure::{Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::settings::{Webhook, WebhookContent};
use crate::store::webhooks::EventFilter;
use crate::webhooks::Endpoint;
use crate::webhooks::dispatcher::Dispatcher;
use crate::webhooks::sender::Sender;
use crate::webhooks::signature::SigningKey;

impl App {
    /// Registers the endpoints of the settings, and returns their tasks. Logs endpoints of the database that the settings
    /// do not have.
    ///
    /// # Errors
    /// If the database is unavailable, or the HTTP client cannot be built.
    pub(super) async fn dispatchers(&self, limiter: &LimiterTask) -> Result<Vec<Dispatcher>, Failure> {
        let webhooks = &self.settings.webhooks;
        for known in self.store.webhooks().await? {
            if !webhooks.iter().any(|webhook| webhook.name == known.name) {
                tracing::warn!(
                    event = "webhook.unset",
                    webhook = known.name,
                    "the database has a webhook that the settings do not have; delete it with `rosterd webhooks remove`"
                );
            }
        }
        if webhooks.is_empty() {
            return Ok(Vec::new());
        }
        let (sender, ttl) = (self.webhook_sender()?, self.settings.lease.ttl);
        let heartbeats = limiter.heartbeats();
        let is_alive = move || heartbeats.borrow().beat_at.is_some_and(|at| at.elapsed() < ttl);
        let is_alive: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(is_alive);
        let mut dispatchers = Vec::new();
        for webhook in webhooks {
            self.store.register_webhook(&webhook.name, webhook.from_beginning).await?;
            dispatchers.push(Dispatcher {
                endpoint: endpoint(webhook)?,
                store: self.store.clone(),
                sender: sender.clone(),
                clock: self.clock.clone(),
                replica: limiter.replica(),
                ttl,
                is_alive: is_alive.clone(),
                wake: Arc::new(Notify::new()),
            });
        }
        Ok(dispatchers)
    }

    /// The endpoint `name` of the settings.
    ///
    /// # Errors
    /// If the settings do not have it.
    pub(crate) fn webhook(&self, name: &str) -> Result<Endpoint, Failure> {
        let webhook = self.settings.webhooks.iter().find(|webhook| webhook.name == name);
        let unknown = || {
            let advice = format!("the settings have no webhook {name}; add a section [webhooks.{name}]");
            Failure::new(Exit::Differences, advice)
        };
        endpoint(webhook.ok_or_else(unknown)?)
    }

    /// Name and origin of each endpoint of the settings.
    pub(crate) fn webhook_origins(&self) -> impl Iterator<Item = (String, String)> {
        let origin = |webhook: &Webhook| webhook.url.origin().ascii_serialization();
        self.settings.webhooks.iter().map(move |webhook| (webhook.name.clone(), origin(webhook)))
    }

    pub(crate) fn webhook_sender(&self) -> Result<Sender, Failure> {
        let user_agent = format!("rosterd/{}", env!("CARGO_PKG_VERSION"));
        Sender::new(user_agent, self.clock.clone()).map_err(|error| Failure::new(Exit::Settings, error))
    }
}

fn endpoint(webhook: &Webhook) -> Result<Endpoint, Failure> {
    let header = |text: &secrecy::SecretString| {
        let mut value = HeaderValue::from_str(text.expose_secret()).map_err(|_| {
            Failure::new(Exit::Settings, "authorization_file has a character that no header may have")
        })?;
        value.set_sensitive(true);
        Ok::<_, Failure>(value)
    };
    Ok(Endpoint {
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        keys: webhook.secrets.iter().map(|secret| SigningKey::new(secret.expose_secret())).collect(),
        authorization: webhook.authorization.as_ref().map(header).transpose()?,
        filter: EventFilter {
            types: webhook.types.clone(),
            accounts: webhook.accounts.clone(),
            initial: webhook.initial,
            include_pay: webhook.include_pay,
            ids_only: webhook.content == WebhookContent::Ids,
        },
        from_beginning: webhook.from_beginning,
        in_flight: usize::try_from(webhook.in_flight).unwrap_or(1),
        timeout: webhook.timeout.max(Duration::from_secs(1)),
        sets_aside: webhook.sets_aside,
    })
}
