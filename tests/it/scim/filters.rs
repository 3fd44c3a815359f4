//! Filters select the same users by SQL as by the pure function `UserQuery::matches`.

use std::collections::BTreeSet;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use rosterd::roster::AccountId;
use rosterd::scim::{ResourceType, UserQuery};
use serde_json::json;
use url::form_urlencoded::byte_serialize;

use super::Directory;

const FILTERS: usize = 300;

/// Conditions whose values are often those of users, in any case.
fn filter(ids: Vec<i64>) -> impl Strategy<Value = String> {
    let texts = ["ada", "ADA", "bob", "o'hara", "100%", "a_a", "Zoë", "", "a\\", "x\"y", "1"];
    let text = prop::sample::select(texts.to_vec()).prop_map(|text| json!(text).to_string());
    let email = (prop::sample::select(texts.to_vec()), any::<bool>()).prop_map(|(text, upper)| {
        let email = format!("{text}@example.com");
        json!(if upper { email.to_ascii_uppercase() } else { email }).to_string()
    });
    let names =
        ["externalId", "userName", "displayName", "name.givenName", "name.familyName", "phoneNumbers.value"];
    let condition = prop_oneof![
        3 => (prop::sample::select(names.to_vec()), text).prop_map(|(name, text)| format!("{name} eq {text}")),
        3 => (prop::sample::select(vec!["userName", "emails", "emails.value"]), email)
            .prop_map(|(name, email)| format!("{name} eq {email}")),
        1 => prop::sample::select(ids).prop_map(|id| format!("id eq \"{id}\"")),
        1 => any::<bool>().prop_map(|active| format!("active eq {active}")),
    ];
    prop::collection::vec(condition, 1..3).prop_map(|conditions| conditions.join(" and "))
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_select_the_same_users_by_sql_as_in_memory() {
    let directory = Directory::new().await;
    let (sim, account) = (&directory.scene.sim, AccountId(directory.scene.sim.account_id()));
    for (first, last, email) in [
        ("Ada", "Bob", "ada@example.com"),
        ("ADA", "ada", "Bob@Example.com"),
        ("O'Hara", "100%", "o'hara@example.com"),
        ("a_a", "axa", "100%@example.com"),
        ("Zoë", "a\\", "a_a@example.com"),
        ("x\"y", "1", "axa@example.com"),
    ] {
        let user = sim.create_user(first, last);
        sim.set_email(user, email);
    }
    let ids = sim.user_ids();
    sim.archive_user(ids[ids.len() - 2]);
    let _daemon = directory.start().await;
    let ids: Vec<i64> = ids.iter().map(|id| id.0).collect();
    for (id, link) in ids.iter().rev().zip([
        json!({"external_id": "ada", "user_name": "Bob"}),
        json!({"external_id": "ADA", "user_name": "ada@EXAMPLE.com", "display_name": "Zoë"}),
        json!({"user_name": "1", "display_name": "ada"}),
        json!({"external_id": "a\\", "user_name": "x\"y"}),
        json!({"external_id": "100%", "removed": true}),
    ]) {
        assert!(directory.scene.store.scim_link_set(account, ResourceType::User, *id, &link).await.unwrap());
    }
    let all = directory.scene.store.scim_matching(account, None, |_| true, 0, u64::MAX);
    let (_, all) = all.await.unwrap();
    assert_eq!(all.len(), ids.len());

    let (mut runner, filters, mut hits) = (TestRunner::deterministic(), filter(ids), 0);
    for _ in 0..FILTERS {
        let filter = filters.new_tree(&mut runner).unwrap().current();
        let query = filter.parse::<UserQuery>().unwrap_or_else(|error| panic!("{filter}: {error}"));
        let expected: BTreeSet<String> =
            all.iter().filter(|user| query.matches(user)).map(|user| user.id.to_string()).collect();
        let encoded: String = byte_serialize(filter.as_bytes()).collect();
        let found = directory.get(&format!("/Users?count=200&filter={encoded}")).await.expect(200).body;
        let resources = found["Resources"].as_array().cloned().unwrap_or_default();
        let found_ids: BTreeSet<String> =
            resources.iter().map(|user| user["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(found_ids, expected, "{filter}");
        assert_eq!(found["totalResults"], expected.len(), "{filter}");
        hits += usize::from(!expected.is_empty());
    }
    assert!(hits > FILTERS / 10, "{hits}");
}
