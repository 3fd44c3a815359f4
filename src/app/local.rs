//! The private PostgreSQL, as the settings describe it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::download::Report;
use crate::settings::{Settings, SettingsError};
use crate::store::local::{DownloadOptions, LocalOptions};

/// The options of the private PostgreSQL.
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

/// Options for the demo, the tests and the benchmarks: servers in any directory share the programs that were downloaded
/// into `programs`. Of this process's environment, only the settings of the download apply.
///
/// # Errors
/// If these settings are invalid.
pub fn development_options(data_dir: &Path, programs: PathBuf) -> Result<LocalOptions, SettingsError> {
    let mut environment: BTreeMap<_, _> =
        std::env::vars().filter(|(name, _)| name.starts_with("ROSTERD__DATABASE__DOWNLOAD")).collect();
    environment.insert("ROSTERD__DATABASE__DATA_DIR".to_owned(), data_dir.display().to_string());
    let mut options = options(&Settings::load(None, &environment)?);
    if let Some(download) = &mut options.download {
        download.dir = Some(programs);
        download.report = Report::Stderr;
    }
    Ok(LocalOptions { data_dir: data_dir.to_owned(), ..options })
}
