//! The parameters `attributes` and `excludedAttributes` (RFC 7644, section 3.9).

/// Which attributes a response has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Projection {}

impl Projection {
    /// The parameters of a query string; other parameters are ignored.
    pub fn from_query_string(_query: &str) -> Self {
        Self {}
    }
}
