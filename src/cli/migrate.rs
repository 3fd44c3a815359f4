//! `rosterd migrate`

use super::output;
use super::support::with_app;
use crate::app::Failure;
use crate::settings::Settings;
use crate::telemetry::count;

pub(super) async fn migrate(settings: Settings) -> Result<(), Failure> {
    Box::pin(with_app(settings, async |app| {
        app.store.require_suitable().await?;
        let applied = app.store.migrate().await?;
        output::print(format_args!("{} applied; the schema is up to date", count(applied, "migration")))
    }))
    .await
}
