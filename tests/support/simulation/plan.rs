//! The plan that a seed generates: a company, and the steps that happen at Harvest and to rosterd.

use harvest_sim::{Fault, Paging, Sim};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use crate::statement_proxy::When;

#[derive(Clone, Debug)]
pub struct Plan {
    pub users: usize,
    pub assignments: usize,
    pub per_page: u32,
    pub paging: Paging,
    pub steps: Vec<Step>,
    /// The failure during the first read.
    pub first: Failure,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// A change at Harvest.
    Edit(Edit),
    /// Time passes on all clocks.
    Pass { seconds: i64 },
    /// Only the clock of rosterd (`ours`) or of Harvest jumps.
    ClockJumps { ours: bool, seconds: i64 },
    /// A cycle, during which this fails.
    Cycle(Failure),
}

/// `pick` selects one of the records that exist. A change appears in Harvest's lists `late` seconds later.
#[derive(Clone, Debug)]
pub enum Edit {
    Rename {
        pick: usize,
        late: u64,
    },
    Budget {
        pick: usize,
        late: u64,
    },
    Hire {
        late: u64,
    },
    Assign {
        pick: usize,
        late: u64,
    },
    Archive {
        pick: usize,
        late: u64,
    },
    Reactivate {
        pick: usize,
    },
    Unassign {
        pick: usize,
    },
    /// An edit without a new `updated_at`, found by a full read only.
    Silent {
        pick: usize,
    },
    Delete {
        pick: usize,
    },
    DeleteAssignment {
        pick: usize,
    },
    /// The token's owner loses administrator rights and sees only a part of the company, or gets the rights back.
    Demote,
    Promote,
}

#[derive(Clone, Debug)]
pub enum Failure {
    None,
    /// rosterd is killed at a statement and started again.
    Killed(At),
    /// The connection is lost at a statement.
    Cut(At),
    /// rosterd is suspended at a statement. Another instance takes over and reads the changes.
    Superseded {
        at: At,
        edits: Vec<Edit>,
    },
    /// Harvest fails on `times` requests, after `skip` requests without a fault.
    HarvestFails {
        how: HarvestFault,
        path: &'static str,
        skip: u32,
        times: u32,
    },
    /// Records change at Harvest between two requests.
    EditsBetweenRequests {
        skip: u32,
        edits: Vec<Edit>,
    },
    /// rosterd restarts and loses its memory.
    Restarted,
}

/// The `nth` statement from now whose text contains `text`.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub when: When,
    pub nth: usize,
    pub text: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum HarvestFault {
    Html(u16),
    Reset,
    Cut,
    Empty,
    /// A record is on no page and not counted in the total.
    Hides {
        pick: usize,
    },
    Total(i64),
}

impl HarvestFault {
    pub fn fault(self, sim: &Sim) -> Fault {
        match self {
            Self::Html(status) => Fault::html(status),
            Self::Reset => Fault::reset(),
            Self::Cut => Fault::truncate_body(),
            Self::Empty => Fault::empty_list(),
            Self::Hides { pick } => {
                let users = sim.user_ids();
                Fault::hide_records([users[pick % users.len()].0])
            }
            Self::Total(by) => Fault::wrong_total(by),
        }
    }
}

/// Without full reads, a plan has no changes that only a full read finds. A full read would repair, and so hide, what an
/// early watermark loses.
pub fn plans(full_reads: bool) -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(step(full_reads), 4..24);
    let paging = select(vec![Paging::Cursor, Paging::Cursor, Paging::Number]);
    let first = prop_oneof![1 => Just(Failure::None), 1 => at().prop_map(Failure::Killed)];
    (3..14_usize, 0..24_usize, 1..6_u32, paging, steps, first).prop_map(
        |(users, assignments, per_page, paging, steps, first)| Plan {
            users,
            assignments,
            per_page,
            paging,
            steps,
            first,
        },
    )
}

fn step(full_reads: bool) -> impl Strategy<Value = Step> {
    let steps = prop_oneof![
        6 => edit(full_reads).prop_map(Step::Edit),
        1 => (1..50_i64).prop_map(|seconds| Step::Pass { seconds }),
        // Longer than the skew buffer, so that no later read repeats what a poll misses.
        1 => (60..200_i64).prop_map(|seconds| Step::Pass { seconds }),
        6 => failure(full_reads).prop_map(Step::Cycle),
    ];
    let clocks = (any::<bool>(), select(vec![-4000, -50, -7, 7, 50, 4000]))
        .prop_map(|(ours, seconds)| Step::ClockJumps { ours, seconds });
    let hours = Just(Step::Pass { seconds: 4000 });
    if full_reads { prop_oneof![14 => steps, 1 => clocks, 1 => hours].boxed() } else { steps.boxed() }
}

fn edit(full_reads: bool) -> impl Strategy<Value = Edit> {
    let late = move || prop_oneof![Just(0), if full_reads { 3..300_u64 } else { 3..47_u64 }];
    let pick = any::<usize>;
    let visible = prop_oneof![
        (pick(), late()).prop_map(|(pick, late)| Edit::Rename { pick, late }),
        (pick(), late()).prop_map(|(pick, late)| Edit::Budget { pick, late }),
        late().prop_map(|late| Edit::Hire { late }),
        (pick(), late()).prop_map(|(pick, late)| Edit::Assign { pick, late }),
        (pick(), late()).prop_map(|(pick, late)| Edit::Archive { pick, late }),
        pick().prop_map(|pick| Edit::Reactivate { pick }),
        pick().prop_map(|pick| Edit::Unassign { pick }),
    ];
    let silent = prop_oneof![
        pick().prop_map(|pick| Edit::Silent { pick }),
        pick().prop_map(|pick| Edit::Delete { pick }),
        pick().prop_map(|pick| Edit::DeleteAssignment { pick }),
        Just(Edit::Demote),
        Just(Edit::Promote),
    ];
    if full_reads { prop_oneof![7 => visible, 3 => silent].boxed() } else { visible.boxed() }
}

fn at() -> impl Strategy<Value = At> {
    let when = || select(vec![When::Before, When::After]);
    Union::new([
        (when(), 1..40_usize).prop_map(|(when, nth)| At { when, nth, text: "" }).boxed(),
        (when(), 1..5_usize).prop_map(|(when, nth)| At { when, nth, text: "COMMIT" }).boxed(),
        (when(), 1..3_usize).prop_map(|(when, nth)| At { when, nth, text: "roster.watermarks" }).boxed(),
        (when(), 1..3_usize).prop_map(|(when, nth)| At { when, nth, text: "roster.outbox" }).boxed(),
    ])
}

fn failure(full_reads: bool) -> impl Strategy<Value = Failure> {
    // Only statements outside a transaction: otherwise the other instance would wait for the lock.
    let outside = prop_oneof![
        (1..5_usize).prop_map(|nth| At { when: When::Before, nth, text: "BEGIN" }),
        (1..3_usize).prop_map(|nth| At { when: When::After, nth, text: "SELECT id, content_hash" }),
    ];
    let edits = move || prop::collection::vec(edit(full_reads), 1..4);
    let how = if full_reads {
        select(vec![
            HarvestFault::Html(502),
            HarvestFault::Reset,
            HarvestFault::Cut,
            HarvestFault::Empty,
            HarvestFault::Hides { pick: 1 },
            HarvestFault::Hides { pick: 2 },
            HarvestFault::Total(-1),
            HarvestFault::Total(1),
        ])
    } else {
        select(vec![HarvestFault::Html(503), HarvestFault::Reset, HarvestFault::Cut])
    };
    prop_oneof![
        6 => Just(Failure::None),
        6 => at().prop_map(Failure::Killed),
        4 => at().prop_map(Failure::Cut),
        3 => (outside, edits()).prop_map(|(at, edits)| Failure::Superseded { at, edits }),
        1 => (how, select(vec!["/users", "/user_assignments"]), 0..4_u32, 1..6_u32)
            .prop_map(|(how, path, skip, times)| Failure::HarvestFails { how, path, skip, times }),
        3 => (0..6_u32, edits()).prop_map(|(skip, edits)| Failure::EditsBetweenRequests { skip, edits }),
        1 => Just(Failure::Restarted),
    ]
}
