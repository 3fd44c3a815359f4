//! What can go wrong at Harvest, told apart where the caller decides differently.

use std::error::Error;

use reqwest::StatusCode;

use super::oauth::IdentityError;
use crate::roster::AccountId;

/// Why a request, or the reading of its answer, failed. Never holds a body: bodies hold people.
#[derive(Debug, thiserror::Error)]
pub enum HarvestError {
    /// 401: the token is bad, or the account header is missing (the answers are the same).
    #[error(
        "Harvest refused the token of account {account} (401) when asked for {what}; make a new personal access \
         token at https://id.getharvest.com/developers (tokens made before SAML sign-in was enforced must be made anew), \
         or with OAuth2 run `rosterd auth login`"
    )]
    Refused {
        /// The account.
        account: AccountId,
        /// What was asked for.
        what: String,
    },
    /// 403: the token's owner may not see this.
    #[error(
        "Harvest does not let the token of account {account} read {what} (403); its owner must be an administrator"
    )]
    Forbidden {
        /// The account.
        account: AccountId,
        /// What was asked for.
        what: String,
    },
    /// 404 on something that every account has.
    #[error(
        "Harvest does not know account {account} for this token (404) when asked for {what}; look the account's \
         number up at https://id.getharvest.com/developers and set HARVEST_ACCOUNT_ID, or check harvest.base_url"
    )]
    UnknownAccount {
        /// The account.
        account: AccountId,
        /// What was asked for.
        what: String,
    },
    /// An answer, or a 403 or 404, that is not in Harvest's own format.
    #[error("{sentence}")]
    NotHarvest {
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
        /// The host, what it answered, what that may mean and what to do.
        sentence: String,
    },
    /// OAuth2: nothing renews the tokens any more, or there never were any.
    #[error(
        "account {account} has no OAuth2 authorization that works; give it a new one with `rosterd auth login`, or set a \
         new first refresh token (HARVEST_OAUTH_REFRESH_TOKEN)"
    )]
    Unauthorized {
        /// The account.
        account: AccountId,
        /// The cause.
        source: IdentityError,
    },
    /// OAuth2: the identity host is in trouble.
    #[error(
        "the OAuth2 tokens of account {account} could not be renewed; try again later, or check harvest.identity_url"
    )]
    Identity {
        /// The account.
        account: AccountId,
        /// The cause.
        source: IdentityError,
    },
    /// OAuth2: the place where tokens are kept is in trouble.
    #[error("cannot get at the OAuth2 tokens of account {account}, which are kept in the database")]
    Keeping {
        /// The account.
        account: AccountId,
        /// The cause.
        source: Box<dyn Error + Send + Sync>,
    },
    /// 429 more often than we are willing to wait for.
    #[error("Harvest asked us to slow down (429) when asked for {what}; try again later")]
    Throttled {
        /// What was asked for.
        what: String,
    },
    /// Any other status.
    #[error("Harvest answered {status} when asked for {what}; try again later")]
    Status {
        /// What was asked for.
        what: String,
        /// The status.
        status: StatusCode,
    },
    /// No answer.
    #[error("no answer from Harvest {sentence}")]
    Unreachable {
        /// Where, when asked for what, and what to do.
        sentence: String,
        /// The cause.
        source: reqwest::Error,
    },
    /// An answer that Harvest would not give.
    #[error("cannot read Harvest's answer for {what}: {problem}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// What is wrong with it; no part of the body.
        problem: String,
    },
    /// A list changed while its pages were read: rows may have been missed.
    #[error("the list of {what} changed while it was read page by page ({problem}); try again later")]
    Drifted {
        /// The list.
        what: String,
        /// What was seen.
        problem: String,
    },
}

impl HarvestError {
    /// Worth another try within the same cycle: connections, time-outs, 429 and 5xx.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Throttled { .. } | Self::Unreachable { .. } | Self::Identity { .. } => true,
            Self::Status { status, .. } => status.is_server_error(),
            Self::Refused { .. }
            | Self::Forbidden { .. }
            | Self::UnknownAccount { .. }
            | Self::NotHarvest { .. }
            | Self::Unauthorized { .. }
            | Self::Keeping { .. }
            | Self::Protocol { .. }
            | Self::Drifted { .. } => false,
        }
    }

    /// The same failure of a page behind a list's first. Harvest has served the list to this token, so the account and
    /// the role are not in question: a page that is not found any more (such as an expired cursor) belongs to a list that
    /// changed.
    pub(super) fn of_later_page(self) -> Self {
        let not_found = |what, status| Self::Drifted {
            what,
            problem: format!("a later page was answered with {status}"),
        };
        match self {
            Self::UnknownAccount { what, .. } => not_found(what, StatusCode::NOT_FOUND),
            Self::NotHarvest { what, status: status @ StatusCode::NOT_FOUND, .. } => not_found(what, status),
            Self::Forbidden { what, .. } => Self::Status { what, status: StatusCode::FORBIDDEN },
            other => other,
        }
    }

    /// Without a token nothing else can be asked either.
    pub fn is_without_token(&self) -> bool {
        matches!(self, Self::Unauthorized { .. } | Self::Identity { .. } | Self::Keeping { .. })
    }

    /// The token, or the account it was sent with, is the trouble: only a person can help.
    pub fn is_credentials(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. }
                | Self::Forbidden { .. }
                | Self::UnknownAccount { .. }
                | Self::Unauthorized { .. }
        )
    }
}
