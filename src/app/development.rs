//! The private PostgreSQL of the demo, the tests and the benchmarks.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::local;
use crate::download::Report;
use crate::settings::{Settings, SettingsError};
use crate::store::local::LocalOptions;

/// Servers in any directory share the programs that were downloaded into `programs`. Of this process's environment, only the
/// settings of the download apply.
///
/// # Errors
/// If these settings are invalid.
pub fn development_options(data_dir: &Path, programs: PathBuf) -> Result<LocalOptions, SettingsError> {
    let mut environment: BTreeMap<_, _> =
        std::env::vars().filter(|(name, _)| name.starts_with("ROSTERD__DATABASE__DOWNLOAD")).collect();
    environment.insert("ROSTERD__DATABASE__DATA_DIR".to_owned(), data_dir.display().to_string());
    let mut options = local::options(&Settings::load(None, &environment)?);
    if let Some(download) = &mut options.download {
        download.dir = Some(programs);
        download.report = Report::Stderr;
    }
    Ok(LocalOptions { data_dir: data_dir.to_owned(), ..options })
}
