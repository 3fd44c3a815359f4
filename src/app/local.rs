//! The private PostgreSQL, as the settings describe it.

use crate::download::Report;
use crate::settings::Settings;
use crate::store::local::{DownloadOptions, LocalOptions};

pub(crate) fn options(settings: &Settings) -> LocalOptions {
    let database = &settings.database;
    let download = database.download.then(|| DownloadOptions {
        url: database.download_url.clone(),
        sha256: database.download_sha256.clone(),
        dir: None,
        report: Report::for_this_process(),
    });
    LocalOptions { download, ..LocalOptions::new(&database.data_dir) }
}
