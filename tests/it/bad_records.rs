//! rosterd rejects a record that it cannot read, with the reason; it stores the other records of the page and deletes
//! none.

use harvest_sim::{Company, Fault, Options, UserId};
use serde_json::{Value, json};

use crate::world::World;

/// Sets a field of one user in every list.
fn with_field(user: UserId, field: &'static str, value: Value) -> Fault {
    Fault::edit_records(move |record| {
        if record.get("id") == Some(&json!(user.0)) {
            record.insert(field.to_owned(), value.clone());
        }
    })
    .on("/users?")
    .forever()
}

/// Replaces the first occurrence of `from` in the bytes of every list of users.
fn with_bytes(from: &'static str, to: &'static [u8]) -> Fault {
    Fault::edit_bytes(move |body| {
        let start = body.windows(from.len()).position(|window| window == from.as_bytes());
        if let Some(start) = start {
            body.splice(start..start + from.len(), to.iter().copied());
        }
    })
    .on("/users?")
    .forever()
}

/// Sets a field of the user Quentin to these digits, which may exceed the number types of Rust and `serde_json`.
fn with_digits(field: &'static str, digits: &'static str) -> Fault {
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
async fn unreadable_record_is_rejected_and_the_rest_of_its_page_is_stored() {
    let mut world = World::new().await;
    let bad_user = world.sim.create_user("Quentin", "Qualm");
    world.cycle().await;
    let other = world.sim.user_ids()[2];
    let faults: Vec<(&str, Fault)> = vec![
        ("first_name", with_field(bad_user, "first_name", json!(7))),
        ("weekly_capacity", with_field(bad_user, "weekly_capacity", json!("full time"))),
        ("weekly_capacity", with_digits("weekly_capacity", "123456789012345678901234567890")),
        ("is_active", with_field(bad_user, "is_active", Value::Null)),
        ("updated_at", with_field(bad_user, "updated_at", json!("0000-00-00"))),
        ("created_at", with_field(bad_user, "created_at", json!("99999-01-01T00:00:00Z"))),
        ("roles", with_field(bad_user, "roles", json!({ "a": 1 }))),
        ("cost_rate", with_digits("cost_rate", "1e400")),
        ("NUL", with_field(bad_user, "last_name", json!("a\u{0}b"))),
        ("64 KiB", with_field(bad_user, "last_name", json!("x".repeat(100 << 10)))),
        ("1 MiB", with_field(bad_user, "last_name", json!("x".repeat(5 << 20)))),
        ("email", with_field(bad_user, "email", json!(format!("{}@example.com", "x".repeat(4000))))),
        ("Unicode", with_bytes("Quentin", b"Qu\xe9ntin")),
        ("Unicode", with_bytes("Quentin", b"Qu\\ud800ntin")),
    ];
    for (reason, fault) in faults {
        world.news().await;
        let row = world.user(bad_user).await;
        world.sim.inject(fault);
        world.sim.edit_user(other, |user| user.telephone.push('3'));
        let report = world.full_cycle().await;
        assert_eq!((report.users.rejected, report.users.changed), (1, 1), "{reason}");
        assert_eq!(world.headlines().await, [format!("user.updated {other}")], "{reason}");
        let rejected = rejections(&world).await;
        assert_eq!(rejected.len(), 1, "{reason}: {rejected:?}");
        assert_eq!(rejected[0].0, Some(bad_user.0), "{reason}");
        assert!(rejected[0].1.contains(reason), "{reason}: {}", rejected[0].1);
        assert_eq!(world.user(bad_user).await, row, "{reason}: the stored row changed");
        world.sim.clear_faults();
        assert_eq!(world.full_cycle().await.users.changed, 0, "{reason}");
        assert!(
            rejections(&world).await.is_empty(),
            "{reason}: the rejection remains after a successful read"
        );
    }
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}

/// `serde_json` decodes these objects into its own types `Number` and `RawValue`.
#[tokio::test]
async fn objects_with_private_keys_of_serde_json_stay_objects_in_the_mirror() {
    let mut world = World::new().await;
    let (user, other) = (world.sim.user_ids()[3], world.sim.user_ids()[2]);
    world.cycle().await;
    for object in [
        json!({ "$serde_json::private::Number": "7200" }),
        json!({ "$serde_json::private::Number": "no digits" }),
        json!({ "$serde_json::private::RawValue": "{\"id\": 1}" }),
        json!({ "$serde_json::private::RawValue": "{not JSON" }),
        json!([{ "a": { "$serde_json::private::Number": "1", "b": 2 } }]),
    ] {
        world.sim.inject(with_field(user, "new_in_2027", object.clone()));
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
            world.sim.inject(with_field(user, field, object.clone()));
            world.sim.edit_user(other, |user| user.telephone.push('3'));
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
async fn page_without_valid_json_fails_the_cycle_and_keeps_the_watermark() {
    let mut world = World::new().await;
    world.cycle().await;
    world.sim.edit_user(world.sim.user_ids()[2], |user| user.telephone.push('3'));
    let edits: [fn(&mut Vec<u8>); 4] = [
        |body| body.truncate(body.len() / 2),
        |body| body.insert(0, 0xff),
        |body| *body = b"null".to_vec(),
        |body| *body = b"{\"people\":[]}".to_vec(),
    ];
    for edit in edits {
        let watermarks = world.watermarks().await;
        world.sim.inject(Fault::edit_bytes(edit).on("/users?").forever());
        world.try_cycle().await.outcome.unwrap_err();
        assert_eq!(world.watermarks().await, watermarks);
        world.sim.clear_faults();
    }
    world.cycle().await;
    world.expect_mirror_equals_source().await;
}

#[tokio::test]
async fn key_absent_from_every_record_emits_no_event() {
    let mut world = World::new().await;
    world.cycle().await;
    world.news().await;
    for (list, sample) in
        [("/users", &world.sim.users_json()[0]), ("/user_assignments", &world.sim.assignments_json()[0])]
    {
        for key in sample.as_object().unwrap().keys() {
            world.sim.inject(Fault::remove_field(key).on(format!("{list}?")).forever());
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
async fn rejected_record_counts_as_present_until_harvest_deletes_the_record() {
    let mut world = World::new().await;
    let bad_user = world.sim.create_user("Quentin", "Qualm");
    world.sim.inject(with_field(bad_user, "is_contractor", json!("perhaps")));
    world.cycle().await;
    assert_eq!(rejections(&world).await.len(), 1);
    world.asked();
    world.cycle().await;
    assert_eq!(world.asked().len(), 4, "the rejected record explains the difference of one");
    world.sim.delete_user(bad_user);
    world.cycle().await;
    assert!(rejections(&world).await.is_empty());
    let unexplained: i64 = sqlx::query_scalar("SELECT count(unexplained_total) FROM roster.watermarks")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(unexplained, 0, "an unexplained difference is on record");
}

#[tokio::test]
async fn newer_rosterd_reads_rejected_records_again_once() {
    let mut world = World::new().await;
    let bad_user = world.sim.create_user("Quentin", "Qualm");
    world.sim.inject(with_field(bad_user, "is_contractor", json!("perhaps")));
    world.cycle().await;
    sqlx::query("UPDATE roster.rejected_records SET rosterd_version = '0.0.1'")
        .execute(world.store.pool())
        .await
        .unwrap();
    world.asked();
    world.cycle().await;
    assert!(world.asked().iter().any(|path| path.contains("/users/me")), "the cycle is not a full read");
    let version: String = sqlx::query_scalar("SELECT rosterd_version FROM roster.rejected_records")
        .fetch_one(world.store.pool())
        .await
        .unwrap();
    assert_eq!(version, env!("CARGO_PKG_VERSION"));
    world.cycle().await;
    assert_eq!(world.asked().len(), 4, "a second full read");
}

/// PostgreSQL can refuse a value that the decoder accepts.
#[tokio::test]
async fn record_refused_by_postgresql_is_rejected_and_others_are_stored() {
    let mut world = World::of(Company::seeded(1, 12, 0), Options::default()).await;
    let (refused, also_refused) = (world.sim.user_ids()[4], world.sim.user_ids()[5]);
    let refuse = format!(
        "CREATE FUNCTION roster.refuse() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF NEW.id IN ({refused}, {also_refused}) THEN
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
        assert!([Some(refused.0), Some(also_refused.0)].contains(&id));
        assert!(error.contains("SQLSTATE 22003") && !error.contains("secret"), "{error}");
    }
    let owned: i64 =
        sqlx::query_scalar("SELECT count(*) FROM roster.rejected_records WHERE user_id = record_id")
            .fetch_one(world.store.pool())
            .await
            .unwrap();
    assert_eq!(owned, 2, "rejections without their user's id");
    sqlx::query("DROP TRIGGER refuse ON roster.users").execute(world.store.pool()).await.unwrap();
    world.full_cycle().await;
    assert!(rejections(&world).await.is_empty());
    world.expect_mirror_equals_source().await;
    world.expect_outbox_replays_to_the_mirror().await;
}
