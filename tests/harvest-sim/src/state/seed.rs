//! Generates a plausible company of any size from a seed.

use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};

use super::changes::address;
use super::company::{BEGINNING, Company};
use super::moment::{Moment, VisibleFrom};
use super::records::{Assignment, AssignmentId, ProjectId, User, UserId};
use crate::clock::Timestamp;

const YEAR: i64 = 365 * 24 * 3600;
/// Users are created in the first six years, projects and assignments in the seventh. Updates come later.
const HIRING: i64 = 6 * YEAR;
const UNTIL: i64 = 7 * YEAR;

impl Company {
    /// Generates a company with `users` users and `assignments` assignments. There is at least one user: the
    /// administrator who owns the token. The same arguments always generate the same company.
    ///
    /// A user has at most one assignment per project. The number of projects is therefore at least `assignments`
    /// divided by `users`.
    pub fn seeded(seed: u64, users: usize, assignments: usize) -> Self {
        Self::new().with_seed_data(seed, users, assignments)
    }

    /// Like [`seeded`](Self::seeded), but with other ids; only the token's owner keeps the id. Use it with
    /// [`Sim::replace_company`](crate::Sim::replace_company).
    pub fn seeded_with_other_ids(seed: u64, users: usize, assignments: usize) -> Self {
        let mut company = Self::new();
        company.users.skip(1_000_000);
        company.projects.skip(1_000_000);
        company.assignments.skip(1_000_000);
        company.with_seed_data(seed, users, assignments)
    }

    fn with_seed_data(mut self, seed: u64, users: usize, assignments: usize) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        for nth in 1..users {
            self.seed_user(&mut rng, nth, users);
        }
        self.seed_teammates(&mut rng);
        self.seed_projects(&mut rng, assignments);
        self
    }

    fn seed_user(&mut self, rng: &mut StdRng, nth: usize, of: usize) {
        let (first, last) = (pick(rng, &FIRST_NAMES), pick(rng, &LAST_NAMES));
        let created = nth_step(nth, of, HIRING);
        let id = self.create_user(first, last, Moment::at(created));
        self.edit_user(id, Moment::at(created).keeping_updated_at(), |user| {
            user.email = address(first, &format!("{last}.{id}"));
            pick(rng, &TIME_ZONES).clone_into(&mut user.timezone);
            user.weekly_capacity = CAPACITIES[rng.random_range(0..CAPACITIES.len())];
            user.roles =
                index::sample(rng, ROLES.len(), nth % 4).into_iter().map(|at| ROLES[at].to_owned()).collect();
            user.access_roles = match rng.random_range(0..100) {
                0..2 => vec!["administrator".to_owned()],
                2..8 => vec!["manager".to_owned()],
                8..10 => vec!["manager".to_owned(), "billable_rates_manager".to_owned()],
                _ => vec!["member".to_owned()],
            };
            user.is_contractor = rng.random_ratio(1, 8);
            user.is_active = !rng.random_ratio(1, 16);
            user.calendar_integration_source = rng.random_ratio(1, 5).then(|| "google".to_owned());
            // Amounts with odd cents have no exact binary representation.
            user.default_hourly_rate =
                rng.random_ratio(3, 4).then(|| f64::from(rng.random_range(3_000..20_000_u32)) / 100.0);
            user.cost_rate = rng.random_ratio(2, 3).then(|| f64::from(rng.random_range(20..90_u32)));
            user.updated_at = later(rng, created);
        });
    }

    fn seed_teammates(&mut self, rng: &mut StdRng) {
        let managers: Vec<UserId> =
            self.users.rows().iter().filter(|user| user.has_access("manager")).map(User::id).collect();
        for manager in managers {
            let users = self.users.rows();
            let team = index::sample(rng, users.len(), users.len().min(5));
            let team: Vec<UserId> = team.into_iter().map(|at| users[at].id).collect();
            self.set_teammates(manager, team, Moment::at(BEGINNING));
        }
    }

    fn seed_projects(&mut self, rng: &mut StdRng, assignments: usize) {
        let users = self.users.rows().len();
        let projects = (assignments / 25).clamp(3, 5_000).max(assignments.div_ceil(users));
        let mut assigned = 0;
        for nth in 0..projects {
            // Distributes the remaining assignments evenly over the remaining projects, so that the sum is exact.
            let team = (assignments - assigned).div_ceil(projects - nth).min(users);
            let name = format!("{} {}", pick(rng, &ADJECTIVES), pick(rng, &PROJECT_KINDS));
            let code = match nth % 4 {
                0 => None,
                1 => Some(String::new()),
                _ => Some(format!("P-{nth:04}")),
            };
            let founded = Moment::at(nth_step(nth, projects, YEAR).plus(HIRING));
            let project = self.new_project(&name, code.as_deref(), founded);
            for user_index in index::sample(rng, users, team) {
                let created = nth_step(assigned, assignments, YEAR).plus(HIRING);
                self.seed_assignment(rng, user_index, project, created);
                assigned += 1;
            }
        }
    }

    fn seed_assignment(
        &mut self,
        rng: &mut StdRng,
        user_index: usize,
        project: ProjectId,
        created: Timestamp,
    ) {
        let user = &self.users.rows()[user_index];
        let own_rate = rng.random_ratio(1, 6);
        let row = Assignment {
            id: AssignmentId(0),
            user: user.id,
            project,
            is_project_manager: !user.has_access("member"),
            is_active: user.is_active && !rng.random_ratio(1, 10),
            use_default_rates: !own_rate,
            budget: rng.random_ratio(1, 9).then(|| f64::from(rng.random_range(10..400_u32))),
            hourly_rate: own_rate.then(|| f64::from(rng.random_range(40..240_u32)) / 2.0),
            created_at: created,
            updated_at: later(rng, created),
        };
        self.assignments.add(VisibleFrom::Now, |key| Assignment { id: AssignmentId(key), ..row });
    }
}

/// The start of step `nth` when `span` seconds are divided into `of` equal steps.
fn nth_step(nth: usize, of: usize, span: i64) -> Timestamp {
    let (nth, of) = (i64::try_from(nth).unwrap_or(0), i64::try_from(of).unwrap_or(i64::MAX).max(1));
    BEGINNING.plus(span / of * nth)
}

fn later(rng: &mut StdRng, created: Timestamp) -> Timestamp {
    let end = BEGINNING.plus(UNTIL).unix().max(created.unix());
    Timestamp::from_unix(rng.random_range(created.unix()..=end))
}

fn pick(rng: &mut StdRng, from: &[&'static str]) -> &'static str {
    from[rng.random_range(0..from.len())]
}

const FIRST_NAMES: [&str; 24] = [
    "Jane",
    "John",
    "Aaron",
    "Zoë",
    "Łukasz",
    "Ingrid",
    "Oluwaseun",
    "Mei",
    "José",
    "Fatima",
    "Siobhán",
    "Dmitri",
    "Amélie",
    "Ravi",
    "Þóra",
    "Noor",
    "Kenji",
    "Anna-Lena",
    "Thabo",
    "Chloe",
    "Ming",
    "Yusuf",
    "Beatriz",
    "Ольга",
];
const LAST_NAMES: [&str; 24] = [
    "Doe",
    "Smith",
    "Burr",
    "O'Brien",
    "Nowak",
    "Nguyễn",
    "García",
    "van der Berg",
    "Müller",
    "Okafor",
    "Tanaka",
    "Petrov",
    "Haddad",
    "Lindqvist",
    "Kaya",
    "Rossi",
    "Silva",
    "Wójcik",
    "Kim",
    "Dubois",
    "Patel",
    "Jónsdóttir",
    "Mbeki",
    "Smith-Jones",
];
const TIME_ZONES: [&str; 10] = [
    "Eastern Time (US & Canada)",
    "Central Time (US & Canada)",
    "Pacific Time (US & Canada)",
    "Kyiv",
    "Stockholm",
    "Moscow",
    "London",
    "Berlin",
    "Tokyo",
    "Brasilia",
];
const CAPACITIES: [i64; 6] = [126_000, 126_000, 144_000, 135_000, 72_000, 0];
const ROLES: [&str; 8] =
    ["Design & UX", "Front-end", "Back-end", "Senior", "Advisor", "Project Lead", "Research", "Operations"];
const ADJECTIVES: [&str; 10] =
    ["Quiet", "Northern", "Second", "Golden", "Inner", "Open", "Paper", "Winter", "Blue", "Grand"];
const PROJECT_KINDS: [&str; 10] = [
    "Bridge",
    "Castle Building",
    "Road Building",
    "Retainer",
    "Website",
    "Audit",
    "Atlas",
    "Harbour",
    "Library",
    "Campaign",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn seeded_company_has_the_requested_size() {
        for (users, assignments) in [(1, 0), (1, 2), (2, 7), (500, 5_000), (300, 4_321)] {
            let company = Company::seeded(1, users, assignments);
            assert_eq!(company.users.rows().len(), users);
            assert_eq!(company.assignments.rows().len(), assignments);
            let pairs: HashSet<_> = company
                .assignments
                .rows()
                .iter()
                .map(|assignment| (assignment.user, assignment.project))
                .collect();
            assert_eq!(pairs.len(), assignments, "one assignment per user and project");
        }
    }

    #[test]
    fn same_seed_generates_the_same_company() {
        let fingerprint = |seed| -> Vec<_> {
            let company = Company::seeded(seed, 50, 200);
            let users = company.users.rows().iter().map(|user| (user.name(), user.updated_at));
            users.zip(company.assignments.rows().iter().map(|assignment| assignment.user).skip(9)).collect()
        };
        assert_eq!(fingerprint(7), fingerprint(7));
        assert_ne!(fingerprint(7), fingerprint(8));
    }

    #[test]
    fn records_are_created_in_the_order_of_their_ids() {
        let company = Company::seeded(3, 100, 1_000);
        assert!(company.users.rows().is_sorted_by_key(|user| user.created_at));
        assert!(company.assignments.rows().is_sorted_by_key(|assignment| assignment.created_at));
        assert!(company.users.rows().iter().all(|user| user.created_at <= user.updated_at));
    }
}
