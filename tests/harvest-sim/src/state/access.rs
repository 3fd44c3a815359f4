//! The records that a token can see. A token always has the current permissions of its owner.

use std::collections::HashSet;

use super::company::Company;
use super::records::{Assignment, Project, ProjectId, User, UserId};

/// The records that the token's owner sees.
pub(crate) enum Visibility {
    /// The owner is an administrator.
    All,
    /// The owner is a manager: Harvest returns fewer records without an error.
    Managed(ManagedRecords),
    /// The owner is a member and sees only the own user record.
    Own,
}

/// The records that a manager sees.
pub(crate) struct ManagedRecords {
    /// Without teammates, Harvest refuses `/users`.
    has_teammates: bool,
    users: HashSet<UserId>,
    projects: HashSet<ProjectId>,
    billable_rates: bool,
}

impl Visibility {
    /// `None` if the token is invalid because its owner is archived or deleted.
    pub fn of_token(company: &Company) -> Option<Self> {
        let owner = company.user(company.token_owner())?;
        if !owner.is_active {
            return None;
        }
        Some(if owner.has_access("administrator") {
            Self::All
        } else if owner.has_access("manager") {
            Self::Managed(ManagedRecords::of(owner, company))
        } else {
            Self::Own
        })
    }

    pub fn may_list_users(&self) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => managed.has_teammates,
            Self::Own => false,
        }
    }

    pub fn may_list_assignments(&self) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => managed.has_teammates || !managed.projects.is_empty(),
            Self::Own => false,
        }
    }

    pub fn may_list_projects(&self) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => !managed.projects.is_empty(),
            Self::Own => false,
        }
    }

    pub fn sees_user(&self, user: &User) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => managed.users.contains(&user.id),
            Self::Own => false,
        }
    }

    pub fn sees_assignment(&self, assignment: &Assignment) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => {
                managed.users.contains(&assignment.user) || managed.projects.contains(&assignment.project)
            }
            Self::Own => false,
        }
    }

    pub fn sees_project(&self, project: &Project) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => managed.projects.contains(&project.id),
            Self::Own => false,
        }
    }

    pub fn sees_all(&self) -> bool {
        matches!(self, Self::All)
    }

    pub fn sees_billable_rates(&self) -> bool {
        match self {
            Self::All => true,
            Self::Managed(managed) => managed.billable_rates,
            Self::Own => false,
        }
    }

    pub fn sees_cost_rates(&self) -> bool {
        self.sees_all()
    }
}

impl ManagedRecords {
    fn of(owner: &User, company: &Company) -> Self {
        let teammates = company.teammates_of(owner.id);
        let has_teammates = teammates.is_some_and(|teammates| !teammates.is_empty());
        let mut users: HashSet<UserId> = teammates.into_iter().flatten().copied().collect();
        users.insert(owner.id);
        let projects = company
            .assignments()
            .rows()
            .iter()
            .filter(|assignment| {
                assignment.user == owner.id && assignment.is_active && assignment.is_project_manager
            })
            .map(|assignment| assignment.project)
            .collect();
        let billable_rates = owner.has_access("billable_rates_manager");
        Self { has_teammates, users, projects, billable_rates }
    }
}

/// The undocumented field `permissions_claims`, as recorded for each access role in 2022.
pub(crate) fn claims(user: &User) -> &'static [&'static str] {
    if user.has_access("administrator") {
        &ADMINISTRATOR
    } else if user.has_access("manager") {
        &MANAGER
    } else {
        &MEMBER
    }
}

const ADMINISTRATOR: [&str; 24] = [
    "billable_rates:read:all",
    "billable_rates:write:all",
    "billing:read:own",
    "billing:write:own",
    "clients:read:all",
    "clients:write:all",
    "company:read:own",
    "company:write:own",
    "cost_rates:read:all",
    "cost_rates:write:all",
    "estimates:read:all",
    "estimates:write:all",
    "expenses:read:all",
    "expenses:write:all",
    "invoices:read:all",
    "invoices:write:all",
    "projects:read:all",
    "projects:write:all",
    "tasks:read:all",
    "tasks:write:all",
    "timers:read:all",
    "timers:write:all",
    "users:read:all",
    "users:write:all",
];

const MANAGER: [&str; 5] = [
    "expenses:read:managed",
    "expenses:write:own",
    "projects:read:managed",
    "timers:read:managed",
    "timers:write:own",
];

const MEMBER: [&str; 4] = ["expenses:read:own", "expenses:write:own", "timers:read:own", "timers:write:own"];
