//! Why a cycle fails, and why an incremental cycle turns into a full one.

use std::fmt;
use std::time::Duration;

use crate::harvest::HarvestError;
use crate::roster::{AccountId, Resource};
use crate::store::StoreError;

/// Why a cycle failed. The watermark does not move.
#[derive(Debug, thiserror::Error)]
pub enum CycleError {
    #[error(transparent)]
    Harvest(#[from] HarvestError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Each account has at least the token's owner.
    #[error("Harvest's list of users is empty, which is impossible; rosterd ignored the list")]
    EmptyUserList,
    /// The mirror has assignments and the list has none, as in an outage.
    #[error(
        "Harvest's list of assignments is empty, but the mirror has some; rosterd ignored the list and held their deletions. \
         If they are really deleted, accept that with `rosterd deletions accept`"
    )]
    EmptyAssignmentList,
    /// The token lost its administrator rights, so its lists are shorter without any error.
    #[error(
        "user {user}, the owner of the token of account {account}, is no longer an administrator and sees only some of the \
         users; rosterd stored no deletions. Make user {user} an administrator again, or use an administrator's token"
    )]
    LostAdministrator { account: AccountId, user: i64 },
    /// The account shows another company with other users: a test system at the same address, or an account that was merged
    /// or replaced.
    #[error(
        "account {account} shows another company than before, and {absent} of the mirror's {live} users are absent: rosterd \
         stored no record and held the deletions of these users; if that is wrong, check HARVEST_ACCOUNT_ID, the token and harvest.base_url (`rosterd check` names the \
         company, `rosterd status` the one before); if the account was really replaced, `rosterd deletions accept --account \
         {account}` lets the new company in"
    )]
    OtherCompany {
        account: AccountId,
        /// Users of the mirror that Harvest does not show.
        absent: usize,
        live: u64,
    },
    /// No statement ended and no response arrived for this long.
    #[error(
        "the cycle made no progress for {} s: PostgreSQL ended no statement, and Harvest sent no response; rosterd ended the \
         cycle and will try again",
        .0.as_secs()
    )]
    Stalled(Duration),
    #[error(
        "the cycle was stopped before its end; stored pages are kept, and the next cycle continues from them"
    )]
    Stopped,
}

impl CycleError {
    /// Whether only an administrator can fix the cause: the token or the account.
    pub fn is_credentials(&self) -> bool {
        match self {
            Self::Harvest(error) => error.is_credentials(),
            Self::LostAdministrator { .. } | Self::OtherCompany { .. } => true,
            Self::Store(_)
            | Self::EmptyUserList
            | Self::EmptyAssignmentList
            | Self::Stalled(_)
            | Self::Stopped => false,
        }
    }

    /// Whether Harvest failed to answer one request, which says nothing about the requested record. A refused token is not
    /// such a failure.
    pub(super) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Harvest(error) if !error.is_credentials() && !error.is_without_token())
    }
}

/// Why an incremental read is not sufficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullReadReason {
    /// A clock was set, so times before and after are not comparable.
    ClockMoved,
    /// There are new users, and the account shows another company.
    OtherCompany,
    /// Harvest reports an empty list, but the mirror has rows.
    Empty { resource: Resource },
    /// Harvest's number of rows differs from the expected one.
    Count {
        resource: Resource,
        total: u64,
        /// The number expected from the mirror.
        expected: u64,
    },
}

impl fmt::Display for FullReadReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ClockMoved => {
                f.write_str("the clocks of Harvest and of this host moved relative to each other")
            }
            Self::OtherCompany => f.write_str("the account shows another company than before"),
            Self::Empty { resource } => write!(f, "Harvest reports no {}", resource.name()),
            Self::Count { resource, total, expected } => {
                write!(f, "Harvest has {total} {}, but {expected} are expected", resource.name())
            }
        }
    }
}
