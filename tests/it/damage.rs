//! A mirror that was changed by hand: the cycle goes on, and no version is emitted twice or goes down.

use std::time::Duration;

use harvest_sim::{AssignmentId, Fault, RateId, UserId};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::World;

/// The record of each kind that belongs to one person: its table, its aggregate, its id.
type Records = [(&'static str, &'static str, i64); 4];

struct Damaged {
    world: World,
    user: UserId,
    place: AssignmentId,
    rates: [RateId; 2],
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kept {
    Everything,
    /// No event.
    History,
    /// No event, and only the current version of each record.
    CurrentVersions,
}

impl Damaged {
    /// One person with an assignment and two rates, all of them at version 4.
    async fn new() -> Self {
        let world = World::new().await;
        let user = world.sim.user_ids()[7];
        let place = world.sim.assign(user, world.sim.project_ids()[0]);
        let rates =
            [world.sim.add_billable_rate(user, 100.0, None), world.sim.add_cost_rate(user, 60.0, None)];
        let mut damaged = Self { world, user, place, rates };
        damaged.read().await;
        for _ in 0..3 {
            damaged.edit();
            damaged.read().await;
        }
        assert_eq!(damaged.versions().await, [4; 4]);
        damaged
    }

    fn records(&self) -> Records {
        let [billable, cost] = self.rates;
        [
            ("users", "user", self.user.0),
            ("user_assignments", "user_assignment", self.place.0),
            ("billable_rates", "billable_rate", billable.0),
            ("cost_rates", "cost_rate", cost.0),
        ]
    }

    /// Changes each of the records at Harvest.
    fn edit(&self) {
        let sim = &self.world.sim;
        sim.edit_user(self.user, |user| user.telephone.push('1'));
        sim.edit_assignment(self.place, |place| {
            place.budget = Some(place.budget.unwrap_or_default() + 1.0);
        });
        let amount = |rates: Vec<serde_json::Value>| rates[0]["amount"].as_f64().unwrap() + 1.0;
        sim.change_billable_rate(self.user, self.rates[0], amount(sim.billable_rates_json(self.user)));
        sim.change_cost_rate(self.user, self.rates[1], amount(sim.cost_rates_json(self.user)));
    }

    /// Reads everything, rates included.
    async fn read(&mut self) {
        self.world.full_cycle().await;
        self.world.turn(async |cycle| cycle.histories(None).await).await.outcome.unwrap();
    }

    /// Harvest no longer has the person, nor what belongs to the person.
    fn remove(&self) {
        let sim = &self.world.sim;
        let places = sim.assignments_json().into_iter().filter(|place| place["user"]["id"] == self.user.0);
        let places: Vec<i64> = places.map(|place| place["id"].as_i64().unwrap()).collect();
        sim.inject(Fault::hide([self.user.0]).on("/users?").forever());
        sim.inject(Fault::hide(places).on("/user_assignments?").forever());
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

    async fn drop_what_is_old(&self, kept: Kept) {
        let store = &self.world.store;
        if kept != Kept::Everything {
            while store.trim_outbox(Duration::ZERO).await.unwrap().is_some() {}
        }
        if kept == Kept::CurrentVersions {
            while store.trim_history(Duration::ZERO).await.unwrap() {}
        }
    }

    /// The records' versions by their rows.
    async fn versions(&self) -> Vec<i64> {
        let mut versions = Vec::new();
        for (table, _, id) in self.records() {
            let rows = self.world.rows(table).await;
            versions.push(rows.get(&id).map_or(0, |row| row["version"].as_i64().unwrap()));
        }
        versions
    }

    /// Since the last look each record has had one event, of this type and version; rows, history and answers about the
    /// past agree with it.
    async fn expect(&mut self, kind: &str, version: i64, case: &str) {
        let news = self.world.news().await;
        for (_, aggregate, id) in self.records() {
            let events = news.iter().filter(|event| {
                event.payload["id"] == id && event.r#type.starts_with(&format!("{aggregate}."))
            });
            let events: Vec<_> = events.map(|event| (event.r#type.clone(), event.version)).collect();
            assert_eq!(events, [(format!("{aggregate}.{kind}"), version)], "{case}");
        }
        assert_eq!(self.versions().await, [version; 4], "{case}");
        for (table, history, answers) in [
            ("users", "user_history", "users_as_of"),
            ("user_assignments", "user_assignment_history", "assignments_as_of"),
        ] {
            let wrong = format!(
                "SELECT (SELECT count(*) FROM roster.{table} AS row
                           FULL JOIN (SELECT * FROM roster.{history} WHERE valid_to IS NULL) AS past
                          USING (account_id, id, version) WHERE row.raw IS NULL OR past.type IS NULL)
                      + (SELECT count(*) FROM (SELECT valid_to IS DISTINCT FROM lead(valid_from) OVER (
                                PARTITION BY account_id, id ORDER BY version) AS is_broken
                                                 FROM roster.{history}) AS chain WHERE is_broken)
                      + (SELECT count(*) FROM (SELECT id, version FROM roster.{table} WHERE deleted_at IS NULL) AS row
                           FULL JOIN directory.{answers}(clock_timestamp()) AS past USING (id, version)
                          WHERE row.id IS NULL OR past.type IS NULL)"
            );
            let wrong: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(wrong))
                .fetch_one(self.world.store.pool())
                .await
                .unwrap();
            assert_eq!(wrong, 0, "{case}: {table} and its history");
        }
    }

    /// After the damage, and one more change, all goes on as usual.
    async fn expect_to_go_on(&mut self, version: i64, case: &str) {
        self.edit();
        self.read().await;
        self.expect("updated", version, case).await;
        self.world.expect_mirror_equals_source().await;
    }
}

async fn versions_go_up(kept: Kept) {
    for (change, last) in [("DELETE", 4), ("version = 1", 4), ("version = 50", 50)] {
        let case = format!("{change}, {kept:?}");
        let mut damaged = Damaged::new().await;
        damaged.drop_what_is_old(kept).await;
        damaged.world.news().await;
        damaged.damage(change).await;
        damaged.edit();
        damaged.read().await;
        let kind = if change == "DELETE" { "created" } else { "updated" };
        damaged.expect(kind, last + 1, &case).await;
        damaged.expect_to_go_on(last + 2, &case).await;
    }
    for (change, last) in [("version = 1", 4), ("version = 50", 50)] {
        let case = format!("{change} and then a deletion, {kept:?}");
        let mut damaged = Damaged::new().await;
        damaged.drop_what_is_old(kept).await;
        damaged.world.news().await;
        damaged.damage(change).await;
        damaged.remove();
        damaged.read().await;
        damaged.expect("deleted", last + 1, &case).await;
    }
    for (change, last) in [("DELETE", 5), ("version = 1", 5), ("version = 50", 50)] {
        let case = format!("{change} of a tombstone, {kept:?}");
        let mut damaged = Damaged::new().await;
        damaged.remove();
        damaged.read().await;
        damaged.drop_what_is_old(kept).await;
        damaged.world.news().await;
        damaged.damage(change).await;
        damaged.world.sim.clear_faults();
        damaged.read().await;
        damaged.expect("created", last + 1, &case).await;
        damaged.expect_to_go_on(last + 2, &case).await;
    }
}

/// Of all that is left in the mirror, only the history knows these records.
#[tokio::test]
async fn rows_deleted_by_hand_of_records_that_harvest_deleted_get_their_deletion_event() {
    for kept in [Kept::Everything, Kept::CurrentVersions] {
        let mut damaged = Damaged::new().await;
        damaged.drop_what_is_old(kept).await;
        damaged.world.news().await;
        for (table, _, id) in &damaged.records()[..2] {
            damaged.world.execute(format!("DELETE FROM roster.{table} WHERE id = {id}")).await;
        }
        damaged.remove();
        damaged.read().await;
        let news = damaged.world.headlines().await;
        for deleted in
            [format!("user.deleted {}", damaged.user), format!("user_assignment.deleted {}", damaged.place)]
        {
            assert_eq!(news.iter().filter(|event| **event == deleted).count(), 1, "{news:?}");
        }
        let at_once = "SELECT id FROM directory.users_as_of(clock_timestamp()) WHERE id = ";
        let ghosts: Vec<i64> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("{at_once}{}", damaged.user)))
            .fetch_all(damaged.world.store.pool())
            .await
            .unwrap();
        assert!(ghosts.is_empty(), "{kept:?}");
        damaged.world.news().await;
        damaged.read().await;
        assert_eq!(damaged.world.headlines().await, [""; 0], "{kept:?}");
    }
}

#[tokio::test]
async fn versions_go_up_after_damage_by_hand() {
    Box::pin(versions_go_up(Kept::Everything)).await;
}

#[tokio::test]
async fn versions_go_up_after_damage_by_hand_and_without_the_old_events() {
    Box::pin(versions_go_up(Kept::History)).await;
}

#[tokio::test]
async fn versions_go_up_after_damage_by_hand_and_without_old_events_and_history() {
    Box::pin(versions_go_up(Kept::CurrentVersions)).await;
}

#[tokio::test]
async fn values_written_by_hand_that_rosterd_cannot_read_are_refused() {
    let mut damaged = Damaged::new().await;
    let mut database = PgConnection::connect(damaged.world.url()).await.unwrap();
    let columns = sqlx::query_as::<_, (String, String, String)>(
        "SELECT table_name::text, column_name::text, udt_name::text FROM information_schema.columns
          WHERE table_schema = 'roster' AND udt_name IN ('timestamptz', 'date', 'numeric')
            AND table_name IN ('accounts', 'users', 'user_assignments', 'billable_rates', 'cost_rates', 'watermarks')",
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
    damaged.edit();
    damaged.read().await;
    assert_eq!(damaged.versions().await, [5; 4]);
}
