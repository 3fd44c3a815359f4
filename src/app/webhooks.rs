//! Creates the endpoints of webhooks from the settings, and their tasks.

use std::sync::Arc;

use secrecy::ExposeSecret;
use tokio::sync::Notify;

use super::context::App;
use super::failure::{Exit, Failure};
use crate::daemon::limiter::LimiterTask;
use crate::settings::Webhook;
use crate::store::status::Status;
use crate::store::webhooks::EventFilter;
use crate::sync::concerns::{Concern, concerns};
use crate::webhooks::Endpoint;
use crate::webhooks::dispatcher::Dispatcher;
use crate::webhooks::notices::Notice;
use crate::webhooks::notifier::Notifier;
use crate::webhooks::sender::Sender;
use crate::webhooks::signature::SigningKey;

#[derive(Default)]
pub(super) struct WebhookTasks {
    pub dispatchers: Vec<Dispatcher>,
    pub notifiers: Vec<Notifier>,
}

impl WebhookTasks {
    /// What wakes them: events, and commands.
    pub fn wakes(&self) -> Vec<Arc<Notify>> {
        let notifiers = self.notifiers.iter().map(|notifier| notifier.wake.clone());
        self.dispatchers.iter().map(|dispatcher| dispatcher.wake.clone()).chain(notifiers).collect()
    }
}

impl App {
    /// Registers the endpoints of the settings, and returns their tasks. Logs endpoints of the database that the settings
    /// do not have.
    ///
    /// # Errors
    /// If the database is unavailable, or the HTTP client cannot be built.
    pub(super) async fn webhook_tasks(&self, limiter: &LimiterTask) -> Result<WebhookTasks, Failure> {
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
            return Ok(WebhookTasks::default());
        }
        let (sender, ttl) = (self.webhook_sender()?, self.settings.lease.ttl);
        let heartbeats = limiter.heartbeats();
        let is_alive = move || heartbeats.borrow().beat_at.is_some_and(|at| at.elapsed() < ttl);
        let is_alive: Arc<dyn Fn() -> bool + Send + Sync> = Arc::new(is_alive);
        let mut tasks = WebhookTasks::default();
        for webhook in webhooks {
            self.store.register_webhook(&webhook.name, webhook.from_beginning).await?;
            let endpoint = Arc::new(endpoint(webhook));
            if webhook.notices {
                let limits = self.concern_limits();
                tasks.notifiers.push(Notifier {
                    endpoint: endpoint.clone(),
                    store: self.store.clone(),
                    sender: sender.clone(),
                    replica: limiter.replica(),
                    is_alive: is_alive.clone(),
                    concerns: Arc::new(move |status: &Status| {
                        concerns(status, &limits).into_iter().filter_map(notice).collect()
                    }),
                    wake: Arc::new(Notify::new()),
                });
            }
            tasks.dispatchers.push(Dispatcher {
                endpoint,
                store: self.store.clone(),
                sender: sender.clone(),
                clock: self.clock.clone(),
                replica: limiter.replica(),
                ttl,
                is_alive: is_alive.clone(),
                wake: Arc::new(Notify::new()),
            });
        }
        Ok(tasks)
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
        webhook.map(endpoint).ok_or_else(unknown)
    }

    pub(crate) fn webhook_sender(&self) -> Result<Sender, Failure> {
        let user_agent = format!("rosterd/{}", env!("CARGO_PKG_VERSION"));
        Sender::new(user_agent, self.clock.clone()).map_err(|error| Failure::new(Exit::Settings, error))
    }
}

/// The concern, with what distinguishes it from others: kind, and the account, list, consumer or webhook.
fn notice(concern: Concern) -> Option<Notice> {
    let data = serde_json::to_value(&concern).ok()?;
    let account_id = concern.account_id;
    let parts = [
        Some(data["kind"].as_str()?.to_owned()),
        account_id.map(|id| id.to_string()),
        concern.resource,
        concern.name,
    ];
    Some(Notice { concern: parts.into_iter().flatten().collect::<Vec<_>>().join("/"), account_id, data })
}

fn endpoint(webhook: &Webhook) -> Endpoint {
    Endpoint {
        name: webhook.name.clone(),
        url: webhook.url.clone(),
        keys: webhook.secrets.iter().map(|secret| SigningKey::new(secret.expose_secret())).collect(),
        authorization: webhook.authorization.clone(),
        filter: EventFilter {
            types: webhook.types.clone(),
            accounts: webhook.accounts.clone(),
            initial: webhook.initial,
            include_pay: webhook.include_pay,
            ids_only: webhook.ids_only,
        },
        from_beginning: webhook.from_beginning,
        in_flight: usize::try_from(webhook.in_flight).unwrap_or(1),
        timeout: webhook.timeout,
        sets_aside: webhook.sets_aside,
    }
}
