//! A plausible company of any size out of a number.

use rand::rngs::StdRng;
use rand::seq::index;
use rand::{RngExt, SeedableRng};

use super::company::{BEGINNING, Company};
use super::moment::{Moment, Shows};
use super::records::{Assignment, AssignmentId, ProjectId, User, UserId};
use super::verbs::address;
use crate::clock::Stamp;

const YEAR: i64 = 365 * 24 * 3600;
/// People came in the first six years, projects and their teams in the seventh, the rest happened since.
const HIRING: i64 = 6 * YEAR;
const UNTIL: i64 = 7 * YEAR;

impl Company {
    /// A company of `users` people (one at least: the administrator who owns the token) with
    /// `assignments` places on projects. The same numbers always make the same company.
    ///
    /// No person is twice on a project, so there are at most `users` assignments a project and as many
    /// projects as that takes.
    pub fn seeded(seed: u64, users: usize, assignments: usize) -> Self {
        Self::new().grown(seed, users, assignments)
    }

    /// As [`seeded`](Self::seeded), but every record has another id than there: only the token's owner has the same.
    /// What [`Sim::replace_company`](crate::Sim::replace_company) is for.
    pub fn seeded_elsewhere(seed: u64, users: usize, assignments: usize) -> Self {
        let mut company = Self::new();
        company.users.skip(1_000_000);
        company.projects.skip(1_000_000);
        company.assignments.skip(1_000_000);
        company.grown(seed, users, assignments)
    }

    fn grown(mut self, seed: u64, users: usize, assignments: usize) -> Self {
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
        let created = share(nth, of, HIRING);
        let id = self.hire(first, last, Moment::at(created));
        self.edit_user(id, Moment::at(created).silently(), |user| {
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
            // Half cents and odd digits happen: money is not a binary fraction.
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
            let people = self.users.rows();
            let team = index::sample(rng, people.len(), people.len().min(5));
            let team: Vec<UserId> = team.into_iter().map(|at| people[at].id).collect();
            self.set_teammates(manager, team, Moment::at(BEGINNING));
        }
    }

    fn seed_projects(&mut self, rng: &mut StdRng, assignments: usize) {
        let people = self.users.rows().len();
        let projects = (assignments / 25).clamp(3, 5_000).max(assignments.div_ceil(people));
        let mut assigned = 0;
        for nth in 0..projects {
            // What is left, spread evenly over the projects left; so the last one ends at the number.
            let team = (assignments - assigned).div_ceil(projects - nth).min(people);
            let name = format!("{} {}", pick(rng, &ADJECTIVES), pick(rng, &UNDERTAKINGS));
            let code = match nth % 4 {
                0 => None,
                1 => Some(String::new()),
                _ => Some(format!("P-{nth:04}")),
            };
            let founded = Moment::at(share(nth, projects, YEAR).plus(HIRING));
            let project = self.new_project(&name, code.as_deref(), founded);
            for person in index::sample(rng, people, team) {
                let created = share(assigned, assignments, YEAR).plus(HIRING);
                self.seed_assignment(rng, person, project, created);
                assigned += 1;
            }
        }
    }

    fn seed_assignment(&mut self, rng: &mut StdRng, person: usize, project: ProjectId, created: Stamp) {
        let user = &self.users.rows()[person];
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
        self.assignments.add(Shows::AtOnce, |key| Assignment { id: AssignmentId(key), ..row });
    }
}

/// The `nth` of so many even steps through `span` seconds.
fn share(nth: usize, of: usize, span: i64) -> Stamp {
    let (nth, of) = (i64::try_from(nth).unwrap_or(0), i64::try_from(of).unwrap_or(i64::MAX).max(1));
    BEGINNING.plus(span / of * nth)
}

fn later(rng: &mut StdRng, created: Stamp) -> Stamp {
    let end = BEGINNING.plus(UNTIL).unix().max(created.unix());
    Stamp::from_unix(rng.random_range(created.unix()..=end))
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
const UNDERTAKINGS: [&str; 10] = [
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
    fn a_seed_makes_exactly_the_company_that_was_ordered() {
        for (users, assignments) in [(1, 0), (1, 2), (2, 7), (500, 5_000), (300, 4_321)] {
            let company = Company::seeded(1, users, assignments);
            assert_eq!(company.users.rows().len(), users);
            assert_eq!(company.assignments.rows().len(), assignments);
            let pairs: HashSet<_> =
                company.assignments.rows().iter().map(|held| (held.user, held.project)).collect();
            assert_eq!(pairs.len(), assignments, "nobody is twice on a project");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_company() {
        let prints = |seed| -> Vec<_> {
            let company = Company::seeded(seed, 50, 200);
            let users = company.users.rows().iter().map(|user| (user.name(), user.updated_at));
            users.zip(company.assignments.rows().iter().map(|held| held.user).skip(9)).collect()
        };
        assert_eq!(prints(7), prints(7));
        assert_ne!(prints(7), prints(8));
    }

    #[test]
    fn records_are_created_in_the_order_of_their_ids() {
        let company = Company::seeded(3, 100, 1_000);
        assert!(company.users.rows().is_sorted_by_key(|user| user.created_at));
        assert!(company.assignments.rows().is_sorted_by_key(|held| held.created_at));
        assert!(company.users.rows().iter().all(|user| user.created_at <= user.updated_at));
    }
}
