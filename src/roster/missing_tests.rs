use proptest::prelude::*;

use super::*;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_700_000_000, 0).expect("a time")
}

fn absent(age: Option<i64>, state: AbsentState, first_404_is_old: Option<bool>) -> AbsentRecord {
    AbsentRecord {
        id: 1,
        created_at: age.map(|minutes| now() - TimeDelta::minutes(minutes)),
        user_id: None,
        project_id: None,
        user_is_gone: false,
        state,
        first_404_is_old,
    }
}

#[test]
fn guard_holds_deletions_above_both_bounds() {
    let guard = DeletionGuard { fraction: 0.10, at_least: 5 };
    assert!(!guard.holds(5, 12), "five of twelve may leave a small company");
    assert!(guard.holds(6, 12));
    assert!(!guard.holds(50, 500));
    assert!(guard.holds(51, 500));
    assert!(!DeletionGuard { fraction: 1.0, at_least: 0 }.holds(7, 7), "a fraction of 1 never holds");
    assert!(DeletionGuard { fraction: 0.0, at_least: 0 }.holds(1, 7), "zeros hold everything");
}

#[test]
fn recently_created_records_need_two_404s() {
    let step = |age, state, first| absent(age, state, first).step(Observation::NotFound(now()));
    assert_eq!(step(Some(10), AbsentState::Undecided, None), Action::Tombstone);
    assert_eq!(step(Some(9), AbsentState::Undecided, None), Action::RecordFirst404);
    assert_eq!(
        step(Some(-50), AbsentState::Undecided, None),
        Action::RecordFirst404,
        "created in the future"
    );
    assert_eq!(step(None, AbsentState::Held(HoldReason::Guard), None), Action::RecordFirst404);
    assert_eq!(step(Some(9), AbsentState::Undecided, Some(false)), Action::Wait);
    assert_eq!(step(Some(9), AbsentState::Undecided, Some(true)), Action::Tombstone);
    assert_eq!(step(None, AbsentState::Accepted, None), Action::Tombstone, "an administrator accepted it");
}

fn state() -> impl Strategy<Value = AbsentState> {
    let reason = prop::sample::select(&HoldReason::ALL[..]);
    prop_oneof![
        Just(AbsentState::Undecided),
        reason.prop_map(AbsentState::Held),
        Just(AbsentState::Accepted),
        Just(AbsentState::Kept),
    ]
}

fn record() -> impl Strategy<Value = AbsentRecord> {
    (prop::option::of(-20..20_i64), state(), prop::option::of(any::<bool>()))
        .prop_map(|(age, state, first)| absent(age, state, first))
}

fn observation() -> impl Strategy<Value = Observation> {
    prop_oneof![
        prop::sample::select(&HoldReason::ALL[..]).prop_map(Observation::Suspicious),
        Just(Observation::NotFound(now())),
        Just(Observation::ParentNotFound),
        Just(Observation::ParentNotFoundOnce),
    ]
}

proptest! {
    #[test]
    fn only_a_404_makes_a_tombstone(record in record(), seen in observation()) {
        if record.step(seen) == Action::Tombstone {
            prop_assert!(matches!(seen, Observation::NotFound(_) | Observation::ParentNotFound));
        }
    }

    #[test]
    fn decisions_of_administrators_are_never_lost(record in record(), seen in observation()) {
        let action = record.step(seen);
        match record.state {
            AbsentState::Kept => prop_assert_eq!(action, Action::Wait),
            AbsentState::Accepted => prop_assert!(!matches!(action, Action::Hold(_))),
            _ => {}
        }
    }

    #[test]
    fn held_deletions_are_held_once_for_each_reason(record in record(), reason in prop::sample::select(&HoldReason::ALL[..])) {
        let is_held = record.state == AbsentState::Held(reason);
        prop_assert!(!(is_held && record.step(Observation::Suspicious(reason)) != Action::Wait));
    }
}
