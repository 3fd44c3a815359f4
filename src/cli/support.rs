//! Opens the database for a command and closes it again.

use std::time::Duration;

use crate::app::{App, Exit, Failure};
use crate::settings::Settings;
use crate::telemetry::count;

/// How long a command other than `run` waits for the database to answer.
pub(super) const DATABASE_WAIT: Duration = Duration::from_secs(10);

/// Opens the database, does the work, and closes the database even if the work failed.
pub(super) async fn with_app<T>(
    settings: Settings,
    work: impl AsyncFnOnce(&App) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_opened(App::open(settings, DATABASE_WAIT).await?, work).await
}

/// Like [`with_app`], for a command that does not migrate and needs the current schema.
pub(super) async fn with_mirror<T>(
    settings: Settings,
    work: impl AsyncFnOnce(&App) -> Result<T, Failure>,
) -> Result<T, Failure> {
    with_app(settings, async |app| {
        require_schema(app).await?;
        work(app).await
    })
    .await
}

pub(super) async fn with_opened<T>(
    app: App,
    work: impl AsyncFnOnce(&App) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let result = work(&app).await.map_err(|failure| failure.at(app.store.target()));
    app.close().await;
    result
}

/// Refuses a database whose migrations are not all applied.
pub(super) async fn require_schema(app: &App) -> Result<(), Failure> {
    match app.store.schema_state().await?.pending {
        0 => Ok(()),
        pending => Err(Failure::new(
            Exit::Settings,
            format!(
                "the database schema is not up to date ({} not applied); run `rosterd migrate`, `sync` or `run` first",
                count(pending, "migration")
            ),
        )),
    }
}

/// Login and host of the user who runs the command.
pub(super) fn operator() -> String {
    let login = ["USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
    let login = login.filter(|login| !login.is_empty()).unwrap_or_else(|| "unknown".to_owned());
    // The name of a replica consists of host and process id.
    let host = App::replica().name;
    format!("{login}@{}", host.split(':').next().unwrap_or_default())
}
