//! A mirror whose rows were changed manually: cycles still succeed, no row is lost, and no version is emitted twice or
//! decreases.

use std::time::Duration;

use harvest_sim::{AssignmentId, Fault, RateId, UserId};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::World;

/// One record of each kind, all of one user: table, aggregate type and id.
type Records = [(&'static str, &'static str, i64); 4];

struct Damaged {
    world: World,
    user: UserId,
    assignment: AssignmentId,
    rates: [RateId; 2],
}

/// The data that retention left before the damage.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Retained {
    Everything,
    /// The history, but no event.
    History,
    /// The rows, but neither an old version nor an event.
    CurrentVersions,
}

impl Damaged {
    /// A user with an assignment and two rates, all at version 4.
    async fn new() -> Self {
        let world = World::new().await;
        let user = world.sim.user_ids()[7];
        let assignment = world.sim.assign(user, world.sim.project_ids()[0]);
        let rates =
            [world.sim.add_billable_rate(user, 100.0, None), world.sim.add_cost_rate(user, 60.0, None)];
        let mut damaged = Self { world, user, assignment, rates };
        damaged.read_everything().await;
        for _ in 0..3 {
            damaged.edit_records();
            damaged.read_everything().await;
        }
        assert_eq!(damaged.versions().await, [4; 4]);
        damaged
    }

    fn records(&self) -> Records {
        let [billable, cost] = self.rates;
        [
            ("users", "user", self.user.0),
            ("user_assignments", "user_assignment", self.assignment.0),
            ("billable_rates", "billable_rate", billable.0),
            ("cost_rates", "cost_rate", cost.0),
        ]
    }

    /// Changes all four records at Harvest.
    fn edit_records(&self) {
        let sim = &self.world.sim;
        sim.edit_user(self.user, |user| user.telephone.push('1'));
        sim.edit_assignment(self.assignment, |assignment| {
            assignment.budget = Some(assignment.budget.unwrap_or_default() + 1.0);
        });
        let raised = |rates: Vec<serde_json::Value>| rates[0]["amount"].as_f64().unwrap() + 1.0;
        sim.change_billable_rate(self.user, self.rates[0], raised(sim.billable_rates_json(self.user)));
        sim.change_cost_rate(self.user, self.rates[1], raised(sim.cost_rates_json(self.user)));
    }

    /// Reads users, assignments and rates.
    async fn read_everything(&mut self) {
        self.world.full_cycle().await;
        self.world
            .turn(async |cycle| rosterd::sync::rates::read_due(cycle, None).await)
            .await
            .outcome
            .unwrap();
    }

    /// Harvest no longer shows the user and the user's records.
    fn remove_user(&self) {
        let sim = &self.world.sim;
        let assignments =
            sim.assignments_json().into_iter().filter(|assignment| assignment["user"]["id"] == self.user.0);
        let assignments: Vec<i64> =
            assignments.map(|assignment| assignment["id"].as_i64().unwrap()).collect();
        sim.inject(Fault::hide_records([self.user.0]).on("/users?").forever());
        sim.inject(Fault::hide_records(assignments).on("/user_assignments?").forever());
        sim.inject(Fault::refusal(404).on(format!("/users/{}", self.user)).forever());
    }

    async fn damage(&self, change: &str) {
        for (table, _, id) in self.records() {
            let statement = match change {
                "DELETE" => format!("DELETE FROM roster.{table} WHERE id = {id}"),
                change => format!("UPDATE roster.{table} SET {change} WHERE id = {id}"),
            };
            self.world.execute(statement).await;
        }
    }

    async fn remove_old_data(&self, retained: Retained) {
        let store = &self.world.store;
        if retained != Retained::Everything {
            while store.trim_outbox(Duration::ZERO).await.unwrap().is_some() {}
        }
        if retained == Retained::CurrentVersions {
            while store.trim_history(Duration::ZERO).await.unwrap() {}
        }
    }

    /// The versions in the four rows; 0 for an absent row.
    async fn versions(&self) -> Vec<i64> {
        let mut versions = Vec::new();
        for (table, _, id) in self.records() {
            let rows = self.world.rows(table).await;
            versions.push(rows.get(&id).map_or(0, |row| row["version"].as_i64().unwrap()));
        }
        versions
    }

    /// Each record has one new event, of this type and version. Rows, history and past views agree with the event.
    async fn expect_one_event(&mut self, kind: &str, version: i64, case: &str) {
        let news = self.world.news().await;
        for (_, aggregate, id) in self.records() {
            let events = news.iter().filter(|event| {
                event.payload["id"] == id && event.r#type.starts_with(&format!("{aggregate}."))
            });
            let events: Vec<_> = events.map(|event| (event.r#type.clone(), event.version)).collect();
            assert_eq!(events, [(format!("{aggregate}.{kind}"), version)], "{case}");
        }
        assert_eq!(self.versions().await, [version; 4], "{case}");
        for (table, history, past_view) in [
            ("users", "user_history", "users_as_of"),
            ("user_assignments", "assignment_history", "assignments_as_of"),
        ] {
            let query = format!(
                "SELECT (SELECT count(*) FROM roster.{table} AS row
                           FULL JOIN (SELECT * FROM directory.{history} WHERE valid_to IS NULL) AS past
                          USING (account_id, id, version) WHERE row.raw IS NULL OR past.type IS NULL)
                      + (SELECT count(*) FROM (SELECT valid_to IS DISTINCT FROM lead(valid_from) OVER (
                                PARTITION BY account_id, id ORDER BY version) AS is_broken
                                                 FROM directory.{history}) AS chain WHERE is_broken)
                      + (SELECT count(*) FROM (SELECT id, version FROM roster.{table} WHERE deleted_at IS NULL) AS row
                           FULL JOIN directory.{past_view}(clock_timestamp()) AS past USING (id, version)
                          WHERE row.id IS NULL OR past.type IS NULL)"
            );
            let differences: i64 =
                sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(self.world.store.pool()).await.unwrap();
            assert_eq!(differences, 0, "{case}: {table} and {history} differ");
        }
    }

    /// One more change at Harvest emits one update of this version.
    async fn expect_next_update(&mut self, version: i64, case: &str) {
        self.edit_records();
        self.read_everything().await;
        self.expect_one_event("updated", version, case).await;
        self.world.expect_mirror_equals_source().await;
    }
}

async fn expect_increasing_versions(retained: Retained) {
    for (change, last) in [("DELETE", 4), ("version = 1", 4), ("version = 50", 50)] {
        let case = format!("{change}, {retained:?}");
        let mut damaged = Damaged::new().await;
        damaged.remove_old_data(retained).await;
        damaged.world.news().await;
        damaged.damage(change).await;
        damaged.edit_records();
        damaged.read_everything().await;
        damaged.expect_one_event("updated", last + 1, &case).await;
        damaged.expect_next_update(last + 2, &case).await;
    }
    for (change, last) in [("version = 1", 4), ("version = 50", 50)] {
        let case = format!("{change} and then a deletion, {retained:?}");
        let mut damaged = Damaged::new().await;
        damaged.remove_old_data(retained).await;
        damaged.world.news().await;
        damaged.damage(change).await;
        damaged.remove_user();
        damaged.read_everything().await;
        damaged.expect_one_event("deleted", last + 1, &case).await;
    }
    for (change, last) in [("DELETE", 5), ("version = 1", 5), ("version = 50", 50)] {
        let case = format!("{change} of a tombstone, {retained:?}");
        let mut damaged = Damaged::new().await;
        damaged.remove_user();
        damaged.read_everything().await;
        damaged.remove_old_data(retained).await;
        damaged.world.news().await;
        damaged.damage(change).await;
        damaged.world.sim.clear_faults();
        damaged.read_everything().await;
        damaged.expect_one_event("created", last + 1, &case).await;
        damaged.expect_next_update(last + 2, &case).await;
    }
}

/// The mirror keeps the rows, so that their deletion can be confirmed.
#[tokio::test]
async fn manually_deleted_rows_of_records_deleted_at_harvest_get_a_deletion_event() {
    for retained in [Retained::Everything, Retained::CurrentVersions] {
        let mut damaged = Damaged::new().await;
        damaged.remove_old_data(retained).await;
        damaged.world.news().await;
        for (table, _, id) in &damaged.records()[..2] {
            damaged.world.execute(format!("DELETE FROM roster.{table} WHERE id = {id}")).await;
        }
        damaged.remove_user();
        damaged.read_everything().await;
        let news = damaged.world.headlines().await;
        for deleted in [
            format!("user.deleted {}", damaged.user),
            format!("user_assignment.deleted {}", damaged.assignment),
        ] {
            assert_eq!(news.iter().filter(|event| **event == deleted).count(), 1, "{news:?}");
        }
        let query = "SELECT id FROM directory.users_as_of(clock_timestamp()) WHERE id = ";
        let still_shown: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(format!("{query}{}", damaged.user)))
            .fetch_all(damaged.world.store.pool())
            .await
            .unwrap();
        assert!(still_shown.is_empty(), "{retained:?}");
        damaged.world.news().await;
        damaged.read_everything().await;
        assert_eq!(damaged.world.headlines().await, [""; 0], "{retained:?}");
    }
}

#[tokio::test]
async fn versions_increase_after_manual_damage() {
    Box::pin(expect_increasing_versions(Retained::Everything)).await;
}

#[tokio::test]
async fn versions_increase_after_manual_damage_without_old_events() {
    Box::pin(expect_increasing_versions(Retained::History)).await;
}

#[tokio::test]
async fn versions_increase_after_manual_damage_without_old_events_and_history() {
    Box::pin(expect_increasing_versions(Retained::CurrentVersions)).await;
}

#[tokio::test]
async fn manually_written_values_that_rosterd_cannot_read_are_refused() {
    let mut damaged = Damaged::new().await;
    let mut database = PgConnection::connect(damaged.world.url()).await.unwrap();
    let groups = "INSERT INTO roster.roles (account_id, id, name, user_ids, changed_at, asked_at) VALUES (1, 1, 'Design', '{}', now(), now());
                  INSERT INTO roster.scim_links (account_id, resource, record_id) VALUES (1, 'Group', 1)";
    sqlx::raw_sql(groups).execute(&mut database).await.unwrap();
    let columns = sqlx::query_as::<_, (String, String, String)>(
        "SELECT table_name::text, column_name::text, udt_name::text FROM information_schema.columns
          WHERE table_schema = 'roster' AND udt_name IN ('timestamptz', 'date', 'numeric')
            AND table_name IN ('accounts', 'users', 'user_assignments', 'billable_rates', 'cost_rates', 'watermarks', 'roles',
                               'scim_links')",
    );
    let columns = columns.fetch_all(&mut database).await.unwrap();
    assert!(columns.len() > 30, "{columns:?}");
    for (table, column, kind) in columns {
        let values: &[&str] = match kind.as_str() {
            "numeric" => &["'NaN'", "'Infinity'", "1e200", "1e-200"],
            _ => &["'infinity'", "'-infinity'", "'262143-01-01'"],
        };
        for value in values {
            let update = AssertSqlSafe(format!("UPDATE roster.{table} SET {column} = {value}"));
            let refused = sqlx::query(update).execute(&mut database).await.unwrap_err();
            let code = refused.as_database_error().and_then(|error| error.code().map(String::from));
            assert_eq!(code.as_deref(), Some("23514"), "{table}.{column} = {value}: {refused}");
        }
    }
    damaged.edit_records();
    damaged.read_everything().await;
    assert_eq!(damaged.versions().await, [5; 4]);
}
