//! The paths of SCIM below an account's URL.

use axum::http::Method;

use crate::roster::AccountId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    ServiceProviderConfig,
    ResourceTypes(Option<&'p str>),
    Schemas(Option<&'p str>),
    Users,
    Search,
    User(&'p str),
    Groups,
    GroupSearch,
    Group(&'p str),
    /// `/Me`, `/Bulk` and the search over all resources.
    NotImplemented,
    Unknown,
}

/// The account of a path, and the rest of the path. Without `/scim/v2/ACCOUNT` there is no account.
pub(super) fn split(path: &str) -> (Option<AccountId>, &str) {
    let Some(rest) = path.strip_prefix("/scim/v2/") else { return (None, path) };
    let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
    (account.parse().ok().filter(|account| *account > 0).map(AccountId), rest)
}

impl<'p> Route<'p> {
    /// The route of the path after the account. Names of resource types are compared without case.
    pub fn of(path: &'p str) -> Self {
        let segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        let (first, second) = match segments.as_slice() {
            [first] => (*first, None),
            [first, second] => (*first, Some(*second)),
            _ => return Self::Unknown,
        };
        match (first.to_ascii_lowercase().as_str(), second) {
            ("serviceproviderconfig", None) => Self::ServiceProviderConfig,
            ("resourcetypes", name) => Self::ResourceTypes(name),
            ("schemas", name) => Self::Schemas(name),
            ("users", None) => Self::Users,
            ("users", Some(".search")) => Self::Search,
            ("users", Some(id)) => Self::User(id),
            ("groups", None) => Self::Groups,
            ("groups", Some(".search")) => Self::GroupSearch,
            ("groups", Some(id)) => Self::Group(id),
            ("me" | "bulk" | ".search", None) => Self::NotImplemented,
            _ => Self::Unknown,
        }
    }

    pub fn without_groups(self) -> Self {
        match self {
            Self::Groups | Self::GroupSearch | Self::Group(_) => Self::Unknown,
            other => other,
        }
    }

    pub fn is_resource(self) -> bool {
        let is_group = self != self.without_groups();
        is_group || matches!(self, Self::Users | Self::Search | Self::User(_))
    }

    pub fn changes(self, method: &Method) -> bool {
        let is_search = matches!(self, Self::Search | Self::GroupSearch);
        !is_search && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
    }

    /// The name in metrics and logs, without ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceProviderConfig => "ServiceProviderConfig",
            Self::ResourceTypes(_) => "ResourceTypes",
            Self::Schemas(_) => "Schemas",
            Self::Users => "Users",
            Self::Search => "Users/.search",
            Self::User(_) => "Users/{id}",
            Self::Groups => "Groups",
            Self::GroupSearch => "Groups/.search",
            Self::Group(_) => "Groups/{id}",
            Self::NotImplemented | Self::Unknown => "other",
        }
    }

    /// The allowed methods, for the header `Allow`. Empty if any method gets the same response.
    pub fn allowed(self) -> &'static str {
        match self {
            Self::ServiceProviderConfig | Self::ResourceTypes(_) | Self::Schemas(_) => "GET, HEAD",
            Self::Users | Self::Groups => "GET, HEAD, POST",
            Self::Search | Self::GroupSearch => "POST",
            Self::User(_) | Self::Group(_) => "GET, HEAD, PUT, PATCH, DELETE",
            Self::NotImplemented | Self::Unknown => "",
        }
    }

    pub fn allows(self, method: &Method) -> bool {
        let allowed = self.allowed();
        allowed.is_empty() || allowed.split(", ").any(|name| name == method.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_has_an_account_and_a_route() {
        assert_eq!(split("/scim/v2/7/Users"), (Some(AccountId(7)), "Users"));
        assert_eq!(split("/scim/v2/7"), (Some(AccountId(7)), ""));
        for path in ["/", "/scim/v2/", "/scim/v2/x/Users", "/scim/v2/-1/Users", "/metrics"] {
            assert_eq!(split(path).0, None, "{path}");
        }
        for (path, route) in [
            ("Users/", Route::Users),
            ("users", Route::Users),
            ("Users/12", Route::User("12")),
            ("Users/.search", Route::Search),
            ("Users/12/groups", Route::Unknown),
            ("Me", Route::NotImplemented),
            (".search", Route::NotImplemented),
            ("Groups", Route::Groups),
            ("groups/.search", Route::GroupSearch),
            ("Groups/7", Route::Group("7")),
            ("Groups/7/members", Route::Unknown),
            ("", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        assert_eq!(Route::Group("7").without_groups(), Route::Unknown);
        assert!(Route::Users.allows(&Method::HEAD) && !Route::Users.allows(&Method::PATCH));
    }
}
