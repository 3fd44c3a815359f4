//! The paths of SCIM below an account's URL.

use axum::http::Method;

use crate::roster::AccountId;
use crate::scim::ResourceType;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'p> {
    ServiceProviderConfig,
    ResourceTypes(Option<&'p str>),
    Schemas(Option<&'p str>),
    List(ResourceType),
    Search(ResourceType),
    One(ResourceType, &'p str),
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
            ("users", path) => Self::of_resource(ResourceType::User, path),
            ("groups", path) => Self::of_resource(ResourceType::Group, path),
            ("me" | "bulk" | ".search", None) => Self::NotImplemented,
            _ => Self::Unknown,
        }
    }

    fn of_resource(kind: ResourceType, path: Option<&'p str>) -> Self {
        match path {
            None => Self::List(kind),
            Some(".search") => Self::Search(kind),
            Some(id) => Self::One(kind, id),
        }
    }

    /// The type of resource that it concerns.
    pub fn resource(self) -> Option<ResourceType> {
        match self {
            Self::List(kind) | Self::Search(kind) | Self::One(kind, _) => Some(kind),
            _ => None,
        }
    }

    pub fn changes(self, method: &Method) -> bool {
        !matches!(self, Self::Search(_))
            && [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(method)
    }

    /// The name in metrics and logs, without ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::ServiceProviderConfig => "ServiceProviderConfig",
            Self::ResourceTypes(_) => "ResourceTypes",
            Self::Schemas(_) => "Schemas",
            Self::List(ResourceType::User) => "Users",
            Self::Search(ResourceType::User) => "Users/.search",
            Self::One(ResourceType::User, _) => "Users/{id}",
            Self::List(ResourceType::Group) => "Groups",
            Self::Search(ResourceType::Group) => "Groups/.search",
            Self::One(ResourceType::Group, _) => "Groups/{id}",
            Self::NotImplemented | Self::Unknown => "other",
        }
    }

    /// The allowed methods, for the header `Allow`. Empty if any method gets the same response.
    pub fn allowed(self) -> &'static str {
        match self {
            Self::ServiceProviderConfig | Self::ResourceTypes(_) | Self::Schemas(_) => "GET, HEAD",
            Self::List(_) => "GET, HEAD, POST",
            Self::Search(_) => "POST",
            Self::One(..) => "GET, HEAD, PUT, PATCH, DELETE",
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
            ("Users/", Route::List(ResourceType::User)),
            ("users", Route::List(ResourceType::User)),
            ("Users/12", Route::One(ResourceType::User, "12")),
            ("Users/.search", Route::Search(ResourceType::User)),
            ("Users/12/groups", Route::Unknown),
            ("Me", Route::NotImplemented),
            (".search", Route::NotImplemented),
            ("Groups", Route::List(ResourceType::Group)),
            ("groups/.search", Route::Search(ResourceType::Group)),
            ("Groups/7", Route::One(ResourceType::Group, "7")),
            ("Groups/7/members", Route::Unknown),
            ("", Route::Unknown),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        let users = Route::List(ResourceType::User);
        assert!(users.allows(&Method::HEAD) && !users.allows(&Method::PATCH));
    }
}
