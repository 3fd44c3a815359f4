//! What a seed stands for: a company, and all that happens to it, to Harvest and to rosterd.

use harvest_sim::{Fault, Paging, Sim};
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::Union;

use crate::tap::When;

#[derive(Clone, Debug)]
pub struct Plan {
    pub people: usize,
    pub places: usize,
    pub per_page: u32,
    pub paging: Paging,
    pub steps: Vec<Step>,
    /// What goes wrong with the first read.
    pub first: Trouble,
}

#[derive(Clone, Debug)]
pub enum Step {
    /// Something happens at Harvest.
    Edit(Edit),
    /// Everybody's clock goes on.
    Pass { seconds: i64 },
    /// One clock alone is set.
    ClockJumps { ours: bool, seconds: i64 },
    /// What is due is read, and this goes wrong.
    Cycle(Trouble),
}

/// Numbers pick a record, whatever is there; some things show so many seconds later.
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
    /// What only a full read or a count finds.
    Silent {
        pick: usize,
    },
    Delete {
        pick: usize,
    },
    DeletePlace {
        pick: usize,
    },
    /// The token's owner sees a part of the company alone, or all of it again.
    Demote,
    Promote,
}

#[derive(Clone, Debug)]
pub enum Trouble {
    None,
    /// rosterd is killed at a statement, and started again.
    Killed(At),
    /// The connection is lost at a statement.
    Cut(At),
    /// rosterd stands still at a statement; another one takes over and reads what has changed meanwhile.
    Overtaken {
        at: At,
        edits: Vec<Edit>,
    },
    /// Harvest stumbles over the requests after the first few.
    Stumbles {
        how: Stumble,
        path: &'static str,
        skip: u32,
        times: u32,
    },
    /// Something happens at Harvest between two requests.
    Meanwhile {
        skip: u32,
        edits: Vec<Edit>,
    },
    /// What rosterd had in memory is gone.
    Restarted,
}

/// The `nth` statement from here on that contains the text.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub when: When,
    pub nth: usize,
    pub text: &'static str,
}

#[derive(Clone, Copy, Debug)]
pub enum Stumble {
    Html(u16),
    Reset,
    Cut,
    Empty,
    /// A record is on no page, and not counted.
    Hides {
        pick: usize,
    },
    Total(i64),
}

impl Stumble {
    pub fn fault(self, sim: &Sim) -> Fault {
        match self {
            Self::Html(status) => Fault::html(status),
            Self::Reset => Fault::reset(),
            Self::Cut => Fault::cut(),
            Self::Empty => Fault::empty_list(),
            Self::Hides { pick } => {
                let users = sim.user_ids();
                Fault::hide([users[pick % users.len()].0])
            }
            Self::Total(by) => Fault::total(by),
        }
    }
}

/// Whether there is what only a full read can find; without it none is made after the first. A full read repairs much,
/// an early watermark among it, and would hide it.
pub fn plans(full_reads: bool) -> impl Strategy<Value = Plan> {
    let steps = prop::collection::vec(step(full_reads), 4..24);
    let paging = select(vec![Paging::Cursor, Paging::Cursor, Paging::Number]);
    let first = prop_oneof![1 => Just(Trouble::None), 1 => at().prop_map(Trouble::Killed)];
    (3..14_usize, 0..24_usize, 1..6_u32, paging, steps, first).prop_map(
        |(people, places, per_page, paging, steps, first)| Plan {
            people,
            places,
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
        // Longer than the skew buffer: what is passed over now is not read once more.
        1 => (60..200_i64).prop_map(|seconds| Step::Pass { seconds }),
        6 => trouble(full_reads).prop_map(Step::Cycle),
    ];
    let clocks = (any::<bool>(), select(vec![-4000, -50, -7, 7, 50, 4000]))
        .prop_map(|(ours, seconds)| Step::ClockJumps { ours, seconds });
    let hours = Just(Step::Pass { seconds: 4000 });
    if full_reads { prop_oneof![14 => steps, 1 => clocks, 1 => hours].boxed() } else { steps.boxed() }
}

fn edit(full_reads: bool) -> impl Strategy<Value = Edit> {
    let late = move || prop_oneof![Just(0), if full_reads { 3..300_u64 } else { 3..47_u64 }];
    let pick = any::<usize>;
    let stamped = prop_oneof![
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
        pick().prop_map(|pick| Edit::DeletePlace { pick }),
        Just(Edit::Demote),
        Just(Edit::Promote),
    ];
    if full_reads { prop_oneof![7 => stamped, 3 => silent].boxed() } else { stamped.boxed() }
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

fn trouble(full_reads: bool) -> impl Strategy<Value = Trouble> {
    // Where no transaction is open, or the other one would have to wait for it: a story of its own.
    let outside = prop_oneof![
        (1..5_usize).prop_map(|nth| At { when: When::Before, nth, text: "BEGIN" }),
        (1..3_usize).prop_map(|nth| At { when: When::After, nth, text: "SELECT id, content_hash" }),
    ];
    let edits = move || prop::collection::vec(edit(full_reads), 1..4);
    let how = if full_reads {
        select(vec![
            Stumble::Html(502),
            Stumble::Reset,
            Stumble::Cut,
            Stumble::Empty,
            Stumble::Hides { pick: 1 },
            Stumble::Hides { pick: 2 },
            Stumble::Total(-1),
            Stumble::Total(1),
        ])
    } else {
        select(vec![Stumble::Html(503), Stumble::Reset, Stumble::Cut])
    };
    prop_oneof![
        6 => Just(Trouble::None),
        6 => at().prop_map(Trouble::Killed),
        4 => at().prop_map(Trouble::Cut),
        3 => (outside, edits()).prop_map(|(at, edits)| Trouble::Overtaken { at, edits }),
        1 => (how, select(vec!["/users", "/user_assignments"]), 0..4_u32, 1..6_u32)
            .prop_map(|(how, path, skip, times)| Trouble::Stumbles { how, path, skip, times }),
        3 => (0..6_u32, edits()).prop_map(|(skip, edits)| Trouble::Meanwhile { skip, edits }),
        1 => Just(Trouble::Restarted),
    ]
}
