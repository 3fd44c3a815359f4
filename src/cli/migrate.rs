//! `rosterd migrate`

use std::process::ExitCode;

use super::{PATIENCE, output, with_app};
use crate::app::Failure;
use crate::settings::Settings;
use crate::telemetry::count;

pub(super) async fn migrate(settings: Settings) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        app.store.require_writable().await?;
        let applied = app.store.migrate().await?;
        output::line(format_args!("{} applied; the schema is up to date", count(applied, "migration")))?;
        Ok(ExitCode::SUCCESS)
    })
    .await
}
