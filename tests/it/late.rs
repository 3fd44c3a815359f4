//! Records that show later than they are stamped, clocks that are wrong and jump, polls at any moment: whatever the
//! schedule, nothing is missed and nothing is doubled.

use chrono::TimeDelta;
use harvest_sim::{Company, Options};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rosterd::sync::schedule::Mode;

use crate::world::World;

/// What happens next. Numbers pick a record, whatever is there.
#[derive(Clone, Debug)]
enum Step {
    /// Somebody or something is changed, and shows so many seconds later.
    Edit {
        pick: usize,
        late: i64,
    },
    EditPlace {
        pick: usize,
        late: i64,
    },
    Hire {
        late: i64,
    },
    Assign {
        pick: usize,
        late: i64,
    },
    Archive {
        pick: usize,
        late: i64,
    },
    /// Two changes within one second, the first of them seen.
    Twice {
        pick: usize,
    },
    Pass {
        seconds: i64,
    },
    Poll,
    /// What only a full read or a count finds.
    Delete {
        pick: usize,
    },
    DeletePlace {
        pick: usize,
    },
    Silent {
        pick: usize,
    },
    ClockJumps {
        minutes: i64,
    },
}

fn step(with_what_needs_full_reads: bool) -> impl Strategy<Value = Step> {
    let late = || prop_oneof![Just(0), 3..=47_i64];
    let stamped = prop_oneof![
        (any::<usize>(), late()).prop_map(|(pick, late)| Step::Edit { pick, late }),
        (any::<usize>(), late()).prop_map(|(pick, late)| Step::EditPlace { pick, late }),
        late().prop_map(|late| Step::Hire { late }),
        (any::<usize>(), late()).prop_map(|(pick, late)| Step::Assign { pick, late }),
        (any::<usize>(), late()).prop_map(|(pick, late)| Step::Archive { pick, late }),
        any::<usize>().prop_map(|pick| Step::Twice { pick }),
        (1..40_i64).prop_map(|seconds| Step::Pass { seconds }),
        Just(Step::Poll),
        Just(Step::Poll),
    ];
    let silent = prop_oneof![
        any::<usize>().prop_map(|pick| Step::Delete { pick }),
        any::<usize>().prop_map(|pick| Step::DeletePlace { pick }),
        any::<usize>().prop_map(|pick| Step::Silent { pick }),
        prop::sample::select(vec![-50, 50, -7, 180]).prop_map(|minutes| Step::ClockJumps { minutes }),
    ];
    if with_what_needs_full_reads { prop_oneof![4 => stamped, 1 => silent].boxed() } else { stamped.boxed() }
}

async fn act(world: &mut World, step: &Step, mode: Option<Mode>) {
    let sim = world.sim.clone();
    let late = |seconds: &i64| sim.later(TimeDelta::seconds(*seconds).to_std().unwrap());
    let (users, places) = (sim.user_ids(), sim.assignment_ids());
    let user = |pick: &usize| users[pick % users.len()];
    let place = |pick: &usize| (!places.is_empty()).then(|| places[pick % places.len()]);
    match step {
        Step::Edit { pick, late: by } => late(by).edit_user(user(pick), |user| user.telephone.push('4')),
        Step::EditPlace { pick, late: by } => {
            if let Some(place) = place(pick) {
                late(by).edit_assignment(place, |place| {
                    place.budget = Some(place.budget.unwrap_or_default() + 1.5);
                });
            }
        }
        Step::Hire { late: by } => _ = late(by).hire("Lena", "Late"),
        Step::Assign { pick, late: by } => _ = late(by).assign(user(pick), sim.project_ids()[0]),
        Step::Archive { pick, late: by } if user(pick) != sim.token_owner() => {
            late(by).deactivate(user(pick));
        }
        Step::Twice { pick } => {
            sim.freeze_clock();
            sim.edit_user(user(pick), |user| user.telephone.push('5'));
            poll(world, mode).await;
            sim.edit_user(user(pick), |user| user.telephone.push('6'));
            sim.thaw_clock();
        }
        Step::Pass { seconds } => world.pass(TimeDelta::seconds(*seconds)),
        Step::Poll => poll(world, mode).await,
        Step::Delete { pick } if user(pick) != sim.token_owner() => sim.delete_user(user(pick)),
        Step::DeletePlace { pick } => {
            if let Some(place) = place(pick) {
                sim.delete_assignment(place);
            }
        }
        Step::Silent { pick } => sim.edit_user_silently(user(pick), |user| user.weekly_capacity += 1800),
        Step::ClockJumps { minutes } => sim.shift_clock(TimeDelta::minutes(*minutes)),
        Step::Archive { .. } | Step::Delete { .. } => {}
    }
}

async fn poll(world: &mut World, mode: Option<Mode>) {
    let report = match mode {
        Some(mode) => world.try_cycle_in(mode).await,
        None => world.try_cycle().await,
    };
    report.outcome.unwrap();
}

fn schedules(cases: u32, steps: impl Strategy<Value = Vec<Step>>, story: impl AsyncFn(Vec<Step>)) {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(story(steps));
            Ok(())
        })
        .unwrap();
}

/// Without full reads, without counts: what is stamped up to 47 seconds before it shows is found by what changed alone.
#[test]
fn what_changed_alone_misses_nothing_and_doubles_nothing() {
    schedules(24, prop::collection::vec(step(false), 1..25), async |steps| {
        let mut world = World::of(Company::seeded(3, 30, 40), Options::default()).await;
        world.rules.count_probe = false;
        world.cycle().await;
        for step in &steps {
            act(&mut world, step, Some(Mode::Incremental)).await;
        }
        world.pass(TimeDelta::seconds(48));
        poll(&mut world, Some(Mode::Incremental)).await;
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
        let before = world.physical().await;
        poll(&mut world, Some(Mode::Incremental)).await;
        assert_eq!(world.physical().await, before);
    });
}

/// With deletions, silent edits and a clock that jumps by hours: counts and full reads make up for what stamps cannot
/// tell, and no event is false.
#[test]
fn whatever_happens_the_mirror_comes_to_the_truth() {
    schedules(24, prop::collection::vec(step(true), 1..25), async |steps| {
        let mut world = World::of(Company::seeded(4, 30, 40), Options::default()).await;
        // Everybody may go, and be told of at the first 404 a moment later: the guard and the young have stories of
        // their own.
        world.rules.guard.fraction = 1.0;
        world.again_after = TimeDelta::zero();
        world.cycle().await;
        for step in &steps {
            act(&mut world, step, None).await;
        }
        world.sim.surface_all();
        world.pass(TimeDelta::hours(2));
        poll(&mut world, None).await;
        poll(&mut world, None).await;
        world.expect_mirror_equals_source().await;
        world.expect_outbox_replays_to_the_mirror().await;
    });
}
