//! `rosterd outbox`: the stream of events.

use std::process::ExitCode;

use clap::Subcommand;

use super::{PATIENCE, output, require_schema, with_app};
use crate::app::Failure;
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Begins a new stream, after a restore that rewound history without a trace: consumers load afresh
    #[command(
        after_help = "A restore by PostgreSQL's own means, or a fail-over, is noticed without this; a volume that was set \
                      back to a snapshot is not. Everything is read again at once.\n\n\
                      Example:\n  rosterd outbox new-stream"
    )]
    NewStream,
}

pub(super) async fn outbox(settings: Settings, command: Command) -> Result<ExitCode, Failure> {
    with_app(settings, PATIENCE, async |app| {
        require_schema(app).await?;
        match command {
            Command::NewStream => {
                let stream = app.store.new_stream().await?;
                output::line(format_args!("the new stream is {stream}; everything is read again"))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    })
    .await
}
