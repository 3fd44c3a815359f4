//! Where an archive is.

use reqwest::Url;

#[derive(Clone, Debug)]
pub(crate) struct Archive {
    /// What the archive contains, for sentences.
    pub name: String,
    pub url: Url,
    /// In hexadecimal digits.
    pub sha256: String,
}
