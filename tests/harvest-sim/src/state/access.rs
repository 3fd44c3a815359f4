//! What a token may see. It is bound to its owner's permissions, whatever they are at the moment.

use std::collections::HashSet;

use super::company::Company;
use super::records::{Assignment, Project, ProjectId, User, UserId};

/// What the token's owner sees.
pub(crate) enum Sight {
    /// An administrator.
    Everything,
    /// A manager: silently less.
    Part(Part),
    /// A member: themselves.
    Own,
}

/// What a manager sees.
pub(crate) struct Part {
    /// Whether anybody was assigned to them: without, `/users` is refused.
    has_teammates: bool,
    people: HashSet<UserId>,
    projects: HashSet<ProjectId>,
    billable_rates: bool,
}

impl Sight {
    /// What the owner of this company's token sees; `None` when the token is no longer good.
    pub fn of_token(company: &Company) -> Option<Self> {
        let owner = company.user(company.token_owner())?;
        if !owner.is_active {
            return None;
        }
        Some(if owner.has_access("administrator") {
            Self::Everything
        } else if owner.has_access("manager") {
            Self::Part(Part::of(owner, company))
        } else {
            Self::Own
        })
    }

    pub fn may_list_users(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => part.has_teammates,
            Self::Own => false,
        }
    }

    pub fn may_list_assignments(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => part.has_teammates || !part.projects.is_empty(),
            Self::Own => false,
        }
    }

    pub fn may_list_projects(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => !part.projects.is_empty(),
            Self::Own => false,
        }
    }

    pub fn sees_user(&self, user: &User) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => part.people.contains(&user.id),
            Self::Own => false,
        }
    }

    pub fn sees_assignment(&self, assignment: &Assignment) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => {
                part.people.contains(&assignment.user) || part.projects.contains(&assignment.project)
            }
            Self::Own => false,
        }
    }

    pub fn sees_project(&self, project: &Project) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => part.projects.contains(&project.id),
            Self::Own => false,
        }
    }

    pub fn sees_all(&self) -> bool {
        matches!(self, Self::Everything)
    }

    pub fn sees_billable_rates(&self) -> bool {
        match self {
            Self::Everything => true,
            Self::Part(part) => part.billable_rates,
            Self::Own => false,
        }
    }

    pub fn sees_cost_rates(&self) -> bool {
        self.sees_all()
    }
}

impl Part {
    fn of(owner: &User, company: &Company) -> Self {
        let teammates = company.teammates_of(owner.id);
        let has_teammates = teammates.is_some_and(|teammates| !teammates.is_empty());
        let mut people: HashSet<UserId> = teammates.into_iter().flatten().copied().collect();
        people.insert(owner.id);
        let projects = company
            .assignments()
            .rows()
            .iter()
            .filter(|held| held.user == owner.id && held.is_active && held.is_project_manager)
            .map(|held| held.project)
            .collect();
        let billable_rates = owner.has_access("billable_rates_manager");
        Self { has_teammates, people, projects, billable_rates }
    }
}

/// The undocumented `permissions_claims`, as recorded in 2022 with each access role.
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
