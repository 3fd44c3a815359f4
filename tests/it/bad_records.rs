//! A record that cannot be read is set aside with its reason; its page-mates go through, and nobody is taken for gone.

use harvest_sim::{Company, Fault, Options, UserId};
use serde_json::{Value, json};

use crate::world::World;

/// Spoils one person in every list, by the field.
fn spoiled(user: UserId, field: &'static str, value: Value) -> Fault {
    Fault::edit_records(move |record| {
        if record.get("id") == Some(&json!(user.0)) {
            record.insert(field.to_owned(), value.clone());
        }
    })
    .on("/users?")
    .forever()
}

/// The same in the bytes of the page.
fn replaced(from: &'static str, to: &'static [u8]) -> Fault {
    Fault::edit_bytes(move |body| {
        let at = body.windows(from.len()).position(|window| window == from.as_bytes());
        if let Some(at) = at {
            body.splice(at..at + from.len(), to.iter().copied());
        }
    })
    .on("/users?")
    .forever()
}

/// Quentin's field holds this number, which need not be one that Rust can hold.
fn number(field: &'static str, digits: &'static str) -> Fault {
    Fault::edit_bytes(move |body| {
        let mut text = String::from_utf8(std::mem::take(body)).unwrap();
        if let Some(record) = text.find("Quentin") {
            let key = format!("\"{field}\":");
            let start = record + text[record..].find(&key).unwrap() + key.len();
            let end = start + text[start..].find(',').unwrap();
            text.replace_range(start..end, digits);
        }
        *body = text.into_bytes();
    })
    .on("/users?")
    .forever()
}

async fn rejections(world: &World) -> Vec<(Option<i64>, String)> {
    sqlx::query_as("SELECT record_id, error FROM roster.rejected_records ORDER BY record_id")
        .fetch_all(world.store.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn one_bad_record_is_set_aside_and_its_page_mates_go_through() {
    let mut world = World::new().await;
    let bad = world.sim.hire("Quentin", "Qualm");
    world.cycle().await;
    let mate = world.sim.user_ids()[2];
    let faults: Vec<(&str, Fault)> = vec![
        ("first_name", spoiled(bad, "first_name", json!(7))),
        ("weekly_capacity", spoiled(bad, "weekly_capacity", json!("full time"))),
        ("weekly_capacity", number("weekly_capacity", "123456789012345678901234567890")),
        ("is_active", spoiled(bad, "is_active", Value::Null)),
        ("updated_at", spoiled(bad, "updated_at", json!("0000-00-00"))),
        ("created_at", spoiled(bad, "created_at", json!("99999-01-01T00:00:00Z"))),
        ("roles", spoiled(bad, "roles", json!({ "a": 1 }))),
        ("cost_rate", number("cost_rate", "1e400")),
        ("NUL", spoiled(bad, "last_name", json!("a\u{0}b"))),
        ("64 KiB", spoiled(bad, "last_name", json!("x".repeat(100 << 10)))),
        ("1 MiB", spoiled(bad, "last_name", json!("x".repeat(5 << 20)))),
        ("email", spoiled(bad, "email", json!(format!("{}@example.com", "x".repeat(4000))))),
        ("Unicode", replaced("Quentin", b"Qu\xe9ntin")),
        ("Unicode", replaced("Quentin", b"Qu\\ud800ntin")),
    ];
    for (reason, fault) in faults {
        world.news().await;
        let row = world.user(bad).await;
        world.sim.inject(fault);
        world.sim.edit_user(mate, |user| user.telephone.push('3'));
        let report = world.full_cycle().await;
        assert_eq!((report.users.rejected, report.users.changed), (1, 1), "{reason}");
        assert_eq!(world.headlines().await, [format!("user.updated {mate}")], "{reason}");
        let rejected = rejections(&world).await;
        assert_eq!(rejected.len(), 1, "{reason}: {rejected:?}");
        assert_eq!(rejected[0].0, Some(bad.0), "{reason}");
        assert!(rejected[0].1.contains(reason), "{reason}: {}", rejected[0].1);
        assert_eq!(world.user(bad).await, row, "{reason}: the old row stays");
        world.sim.clear_faults();
        assert_eq!(world.full_cycle().await.users.changed, 0, "{reason}");
        assert!(rejections(&world).await.is_empty(), "{reason}: it is read well again");
    }
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// Objects that `serde_json`'s own types take for a number or for other JSON.
#[tokio::test]
async fn objects_with_private_keys_of_serde_json_stay_objects_in_the_mirror() {
    let mut world = World::new().await;
    let (user, mate) = (world.sim.user_ids()[3], world.sim.user_ids()[2]);
    world.cycle().await;
    for object in [
        json!({ "$serde_json::private::Number": "7200" }),
        json!({ "$serde_json::private::Number": "no digits" }),
        json!({ "$serde_json::private::RawValue": "{\"id\": 1}" }),
        json!({ "$serde_json::private::RawValue": "{not JSON" }),
        json!([{ "a": { "$serde_json::private::Number": "1", "b": 2 } }]),
    ] {
        world.sim.inject(spoiled(user, "new_in_2027", object.clone()));
        assert_eq!(world.full_cycle().await.users.rejected, 0, "{object}");
        let kept: bool =
            sqlx::query_scalar("SELECT raw -> 'new_in_2027' = $2::jsonb FROM roster.users WHERE id = $1")
                .bind(user.0)
                .bind(sqlx::types::Json(&object))
                .fetch_one(world.store.pool())
                .await
                .unwrap();
        assert!(kept, "{object}");
        world.sim.clear_faults();

        for field in ["weekly_capacity", "cost_rate", "first_name", "roles"] {
            world.sim.inject(spoiled(user, field, object.clone()));
            world.sim.edit_user(mate, |user| user.telephone.push('3'));
            let report = world.full_cycle().await;
            assert_eq!((report.users.rejected, report.users.changed), (1, 1), "{field}: {object}");
            let rejected = rejections(&world).await;
            assert_eq!(rejected[0].0, Some(user.0));
            assert!(rejected[0].1.starts_with(&format!("{field} is not ")), "{object}: {}", rejected[0].1);
            world.sim.clear_faults();
        }
        world.full_cycle().await;
    }
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

#[tokio::test]
async fn a_page_that_is_no_json_fails_the_cycle_and_loses_nothing() {
    let mut world = World::new().await;
    world.cycle().await;
    world.sim.edit_user(world.sim.user_ids()[2], |user| user.telephone.push('3'));
    let breaks: [fn(&mut Vec<u8>); 4] = [
        |body| body.truncate(body.len() / 2),
        |body| body.insert(0, 0xff),
        |body| *body = b"null".to_vec(),
        |body| *body = b"{\"people\":[]}".to_vec(),
    ];
    for spoil in breaks {
        let marks = world.watermarks().await;
        world.sim.inject(Fault::edit_bytes(spoil).on("/users?").forever());
        world.try_cycle().await.outcome.unwrap_err();
        assert_eq!(world.watermarks().await, marks);
        world.sim.clear_faults();
    }
    world.cycle().await;
    world.expect_mirror_equals_source().await;
}

/// Whatever key goes missing, nobody leaves, nothing is told, and nothing known is lost.
#[tokio::test]
async fn a_key_dropped_from_every_record_is_no_news() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    for (list, sample) in
        [("/users", &world.sim.users_json()[0]), ("/user_assignments", &world.sim.assignments_json()[0])]
    {
        for key in sample.as_object().unwrap().keys() {
            world.sim.inject(Fault::without_field(key).on(format!("{list}?")).forever());
            world.full_cycle().await;
            world.cycle().await;
            world.sim.clear_faults();
            assert!(world.headlines().await.is_empty(), "{list} without {key}");
            assert!(world.held().await.is_empty(), "{list} without {key}");
            world.full_cycle().await;
            assert!(world.headlines().await.is_empty(), "{list} with {key} again");
            assert!(rejections(&world).await.is_empty(), "{list} with {key} again");
            world.expect_mirror_equals_source().await;
        }
    }
}

#[tokio::test]
async fn what_is_bad_and_leaves_is_forgotten_and_counts_as_there_until_then() {
    let mut world = World::new().await;
    let bad = world.sim.hire("Quentin", "Qualm");
    world.sim.inject(spoiled(bad, "is_contractor", json!("perhaps")));
    world.cycle().await;
    assert_eq!(rejections(&world).await.len(), 1);
    world.asked();
    world.cycle().await;
    assert_eq!(world.asked().len(), 4, "one row less than Harvest has is explained");
    world.sim.delete_user(bad);
    world.cycle().await;
    assert!(rejections(&world).await.is_empty());
    let unexplained: i64 = sqlx::query_scalar("SELECT count(unexplained_total) FROM roster.watermarks")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(unexplained, 0, "nor is it missed");
}

#[tokio::test]
async fn a_newer_rosterd_tries_again_what_an_older_one_could_not_read() {
    let mut world = World::new().await;
    let bad = world.sim.hire("Quentin", "Qualm");
    world.sim.inject(spoiled(bad, "is_contractor", json!("perhaps")));
    world.cycle().await;
    sqlx::query("UPDATE roster.rejected_records SET rosterd_version = '0.0.1'")
        .execute(world.store.pool())
        .await
        .unwrap();
    world.asked();
    world.cycle().await;
    assert!(world.asked().iter().any(|path| path.contains("/users/me")), "everything is read again");
    let version: String = sqlx::query_scalar("SELECT rosterd_version FROM roster.rejected_records")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    world.cycle().await;
    assert_eq!(world.asked().len(), 4, "and not once more");
}

/// PostgreSQL may know better than the decoder what it can store.
#[tokio::test]
async fn a_record_that_postgresql_refuses_is_set_aside_alone() {
    let mut world = World::of(Company::seeded(1, 12, 0), Options::default()).await;
    let (bad, worse) = (world.sim.user_ids()[4], world.sim.user_ids()[5]);
    let refuse = format!(
        "CREATE FUNCTION roster.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.id IN ({bad}, {worse}) THEN
                 RAISE EXCEPTION 'a secret value' USING ERRCODE = 'numeric_value_out_of_range';
             END IF;
             RETURN NEW;
         END $$"
    );
    sqlx::query(sqlx::AssertSqlSafe(refuse)).execute(world.store.pool()).await.unwrap();
    sqlx::query(
        "CREATE TRIGGER refuse BEFORE INSERT ON roster.users FOR EACH ROW EXECUTE FUNCTION roster.refuse()",
    )
    .execute(world.store.pool())
    .await
    .unwrap();
    let report = world.cycle().await;
    assert_eq!((report.users.changed, report.users.rejected), (10, 2));
    for (id, error) in rejections(&world).await {
        assert!([Some(bad.0), Some(worse.0)].contains(&id));
        assert!(error.contains("SQLSTATE 22003") && !error.contains("secret"), "{error}");
    }
    let owned: i64 =
        sqlx::query_scalar("SELECT count(*) FROM roster.rejected_records WHERE user_id = record_id")
            .fetch_one(world.store.pool())
            .await
            .unwrap();
    assert_eq!(owned, 2, "each says whose it is");
    sqlx::query("DROP TRIGGER refuse ON roster.users").execute(world.store.pool()).await.unwrap();
    world.full_cycle().await;
    assert!(rejections(&world).await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}
