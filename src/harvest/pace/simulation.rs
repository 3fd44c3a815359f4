//! The law in virtual time: several processes with clocks of their own, a lossy road to the database and to
//! Harvest, time-outs, crashes, clean stops; counted at Harvest's door. The ledger follows the rule of
//! `store::permits`, the processes run the real [`State`].

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::state::State;
use super::{Lane, Limits};

pub(super) const SECOND: u64 = 1_000_000; // all times are microseconds of true time
const LIMITS: Limits =
    Limits { requests: 100, window: Duration::from_secs(15), reserve: 5, grace: Duration::from_secs(8) };
const TTL: Duration = Duration::from_secs(15);

/// How bad the world is.
#[derive(Clone, Copy, Debug)]
struct Weather {
    processes: usize,
    /// Requests that a process has under way at once.
    callers: usize,
    /// The longest way to Harvest, and back.
    up: u64,
    down: u64,
    /// Then the client gives up.
    patience: u64,
    /// The longest pause between two requests of one caller.
    think: u64,
    /// The longest way to the database, and back.
    database: u64,
    /// Of a thousand messages to or from the database so many are lost.
    lost: u32,
    /// The longest time that a process sees, or does not see, the database at all; nought: always sees it.
    outage: u64,
    /// On average so long until a process crashes or stops.
    life: u64,
    /// How far clocks may differ from true time, in millionths.
    drift: i64,
    until: u64,
}

/// `roster.permits` for one budget, by the database's clock.
#[derive(Default)]
struct Ledger {
    /// (chunk, process, permits, free at)
    rows: Vec<(i64, u64, u32, u64)>,
    chunks: i64,
}

impl Ledger {
    fn take(&mut self, life: u64, now: u64) -> Option<(i64, u32)> {
        self.rows.retain(|&(.., free_at)| free_at > now);
        let taken: u32 = self.rows.iter().map(|row| row.2).sum();
        let permits = LIMITS.chunk().min(LIMITS.permits() - taken);
        (permits > 0).then(|| {
            self.chunks += 1;
            self.rows.push((self.chunks, life, permits, now + micros(LIMITS.hold(TTL))));
            (self.chunks, permits)
        })
    }

    fn beat(&mut self, chunks: &[i64], now: u64) -> Vec<i64> {
        let ours = self.rows.iter_mut().filter(|row| chunks.contains(&row.0));
        ours.map(|row| (row.3 = now + micros(LIMITS.hold(TTL)), row.0).1).collect()
    }

    fn leave(&mut self, life: u64, free_at: u64) {
        self.rows.iter_mut().filter(|row| row.1 == life).for_each(|row| row.3 = row.3.min(free_at));
    }
}

struct Process {
    /// One more with each start of any process: messages to an earlier life are lost.
    life: u64,
    drift: i64,
    state: State,
    chunks: Vec<(i64, u32)>,
    /// The database cannot be reached from here.
    away: bool,
}

/// What happens; `usize` is the process and `u64` its life.
enum Event {
    Look(usize, u64),
    Ended(usize, u64, Lane, bool),
    Beat(usize, u64),
    BeatRuns(usize, u64, Instant, Vec<i64>),
    BeatBack(usize, u64, Instant, Vec<i64>, Vec<i64>),
    TakeRuns(usize, u64),
    TakeBack(usize, u64, Option<(i64, u32)>),
    LeaveRuns(u64, u64),
    Ends(usize, u64),
    Road(usize),
}

struct World {
    weather: Weather,
    rng: StdRng,
    base: Instant,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, usize)>>,
    events: Vec<Option<Event>>,
    ledger: Ledger,
    database_drift: i64,
    processes: Vec<Process>,
    lives: u64,
    /// When Harvest handled each request.
    handled: Vec<u64>,
}

pub(super) fn micros(span: Duration) -> u64 {
    span.as_micros().try_into().unwrap()
}

fn drifted(time: u64, drift: i64) -> u64 {
    time.strict_add_signed(i64::try_from(time).unwrap() * drift / 1_000_000)
}

impl World {
    /// Runs to the end and returns when Harvest handled each request.
    fn run(weather: Weather, seed: u64) -> Vec<u64> {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut drift = || rng.random_range(-weather.drift..=weather.drift);
        let (database_drift, drifts) = (drift(), (0..weather.processes).map(|_| drift()).collect::<Vec<_>>());
        let base = Instant::now();
        let process = |drift| {
            let state = State::new(LIMITS, Duration::ZERO, base);
            Process { life: 0, drift, state, chunks: Vec::new(), away: false }
        };
        let mut world = Self {
            weather,
            rng,
            base,
            now: 0,
            agenda: BinaryHeap::new(),
            events: Vec::new(),
            ledger: Ledger::default(),
            database_drift,
            processes: drifts.into_iter().map(process).collect(),
            lives: 0,
            handled: Vec::new(),
        };
        for process in 0..weather.processes {
            world.born(process);
            if weather.outage > 0 {
                world.after(0, Event::Road(process));
            }
        }
        while let Some(Reverse((at, event))) = world.agenda.pop() {
            if at > weather.until {
                break;
            }
            world.now = at;
            let event = world.events[event].take().unwrap();
            world.happen(event);
        }
        world.handled.sort_unstable();
        world.handled
    }

    fn after(&mut self, delay: u64, event: Event) {
        self.agenda.push(Reverse((self.now + delay, self.events.len())));
        self.events.push(Some(event));
    }

    /// Nothing and the most are as likely as all between: laws break at the edges.
    fn random(&mut self, most: u64) -> u64 {
        match self.rng.random_range(0..4) {
            0 => 0,
            1 => most,
            _ => self.rng.random_range(0..=most),
        }
    }

    /// A message between a process and the database, unless it is lost.
    fn send(&mut self, process: usize, event: Event) {
        let delay = self.random(self.weather.database);
        if !self.processes[process].away && self.rng.random_range(0..1000) >= self.weather.lost {
            self.after(delay, event);
        }
    }

    fn clock(&self, process: usize) -> Instant {
        self.base + Duration::from_micros(drifted(self.now, self.processes[process].drift))
    }

    fn alive(&self, process: usize, life: u64) -> bool {
        self.processes[process].life == life
    }

    fn born(&mut self, index: usize) {
        self.lives += 1;
        let (life, now) = (self.lives, self.clock(index));
        let process = &mut self.processes[index];
        process.life = life;
        process.state = State::new(LIMITS, Duration::ZERO, now);
        process.chunks.clear();
        self.after(0, Event::Beat(index, life));
        for _ in 0..self.weather.callers {
            self.after(0, Event::Look(index, life));
        }
        let span = self.random(2 * self.weather.life);
        self.after(span, Event::Ends(index, life));
    }

    fn happen(&mut self, event: Event) {
        let database_now = drifted(self.now, self.database_drift);
        match event {
            Event::Look(p, life) if self.alive(p, life) => self.look(p, life),
            Event::Ended(p, life, lane, answered) if self.alive(p, life) => {
                let now = self.clock(p);
                let state = &mut self.processes[p].state;
                let ended = if answered { State::answered } else { State::abandoned };
                ended(state, lane, now);
                let pause = self.random(self.weather.think);
                self.after(pause, Event::Look(p, life));
            }
            Event::Beat(p, life) if self.alive(p, life) => {
                let chunks = self.processes[p].chunks.iter().map(|chunk| chunk.0).collect();
                self.send(p, Event::BeatRuns(p, life, self.clock(p), chunks));
                self.after(micros(TTL) / 3, Event::Beat(p, life));
            }
            // What reached the database is done there, whether or not its sender still lives.
            Event::BeatRuns(p, life, sent, chunks) => {
                let kept = self.ledger.beat(&chunks, database_now);
                self.send(p, Event::BeatBack(p, life, sent, chunks, kept));
            }
            Event::BeatBack(p, life, sent, asked, kept) if self.alive(p, life) => {
                let process = &mut self.processes[p];
                let lost = |chunk: &(i64, u32)| asked.contains(&chunk.0) && !kept.contains(&chunk.0);
                for chunk in process.chunks.extract_if(.., |chunk| lost(chunk)) {
                    process.state.lose(chunk.1);
                }
                process.state.trust_until(sent + TTL);
            }
            Event::TakeRuns(p, life) => {
                let chunk = self.ledger.take(life, database_now);
                self.send(p, Event::TakeBack(p, life, chunk));
            }
            Event::TakeBack(p, life, chunk) if self.alive(p, life) => {
                let process = &mut self.processes[p];
                if let Some(chunk) = chunk {
                    process.chunks.push(chunk);
                    process.state.add(chunk.1);
                }
            }
            Event::LeaveRuns(life, rest) => self.ledger.leave(life, database_now + rest),
            Event::Ends(p, life) if self.alive(p, life) => {
                if self.rng.random() {
                    let now = self.clock(p);
                    let rest = micros(self.processes[p].state.close(now));
                    self.send(p, Event::LeaveRuns(life, rest));
                }
                self.born(p);
            }
            Event::Road(p) => {
                self.processes[p].away ^= true;
                let span = self.random(self.weather.outage);
                self.after(span.max(SECOND), Event::Road(p));
            }
            _ => {} // meant for a process that is dead
        }
    }

    /// A caller wants to send.
    fn look(&mut self, p: usize, life: u64) {
        let lane = if self.rng.random_ratio(1, 4) { Lane::Background } else { Lane::Poll };
        let now = self.clock(p);
        let (outcome, ring) = self.processes[p].state.grant(now, lane);
        if ring && self.processes[p].state.needs().permits {
            self.send(p, Event::TakeRuns(p, life));
        }
        match outcome {
            Ok(()) => {
                let (up, down) = (self.random(self.weather.up), self.random(self.weather.down));
                self.handled.push(self.now + up);
                let answered = up + down <= self.weather.patience;
                self.after((up + down).min(self.weather.patience), Event::Ended(p, life, lane, answered));
            }
            Err(again) => {
                let wait = micros(again.saturating_duration_since(now)).min(SECOND / 2);
                self.after(wait.max(1_000), Event::Look(p, life));
            }
        }
    }
}

/// The most requests in any closed window.
pub(super) fn worst_window(handled: &[u64]) -> usize {
    let window = micros(LIMITS.window);
    let mut first = 0;
    let mut worst = 0;
    for (last, &at) in handled.iter().enumerate() {
        while at - handled[first] > window {
            first += 1;
        }
        worst = worst.max(last - first + 1);
    }
    worst
}

fn weather() -> impl Strategy<Value = Weather> {
    fn up_to(most: u64) -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), Just(most), 0..=most]
    }
    let grace = micros(LIMITS.grace);
    let sizes = (2_usize..=4, 1_usize..=50);
    let road = (up_to(grace), up_to(2 * grace), SECOND / 10..=grace);
    let database = (up_to(10 * SECOND), prop_oneof![Just(0), 0_u32..=300], up_to(60 * SECOND));
    let rest = (up_to(20 * SECOND), 5 * SECOND..=120 * SECOND, prop_oneof![Just(0), Just(7_000)]);
    (sizes, road, database, rest).prop_map(|(sizes, road, database, rest)| {
        let ((processes, callers), (up, down, patience)) = (sizes, road);
        let ((database, lost, outage), (think, life, drift)) = (database, rest);
        let until = 180 * SECOND;
        Weather { processes, callers, up, down, patience, think, database, lost, outage, life, drift, until }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn harvest_never_sees_more_than_the_budget_in_any_window(weather in weather(), seed: u64) {
        let worst = worst_window(&World::run(weather, seed));
        prop_assert!(worst <= LIMITS.permits() as usize, "{worst} requests in one window");
    }
}

/// A road to Harvest as it is on an ordinary day, and one process that reads as fast as it may.
const ORDINARY: Weather = Weather {
    processes: 1,
    callers: 4,
    up: SECOND / 20,
    down: SECOND * 3 / 10,
    patience: 8 * SECOND,
    think: 0,
    database: SECOND / 100,
    lost: 0,
    outage: 0,
    life: 60 * SECOND,
    drift: 0,
    until: 600 * SECOND,
};

#[test]
fn a_long_read_uses_more_than_85_percent_of_what_harvest_allows() {
    for seed in 0..8 {
        let handled = World::run(Weather { life: u64::MAX / 4, ..ORDINARY }, seed);
        let allowed = f64::from(LIMITS.requests) * 600.0 / LIMITS.window.as_secs_f64();
        let used = f64::from(u32::try_from(handled.len()).unwrap()) / allowed;
        assert!(used > 0.85, "{used}");
    }
}

#[test]
fn the_budget_is_free_again_after_every_crash() {
    for seed in 0..8 {
        let handled = World::run(Weather { processes: 2, ..ORDINARY }, seed);
        let longest = handled.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
        // At worst one process held all, had used it up, and died: its slots' rest, then its chunks'.
        let most = LIMITS.cooldown() + LIMITS.hold(TTL) + Duration::from_secs(2);
        assert!(longest <= micros(most), "silent for {longest} µs");
    }
}

/// The edge that chance seldom meets: all is sent in the last moment of trust, and is long on its way.
#[test]
fn a_lost_process_keeps_its_permits_until_its_last_request_has_left_the_window() {
    let base = Instant::now();
    let mut ledger = Ledger::default();
    let mut state = State::new(LIMITS, Duration::ZERO, base);
    while let Some((_, permits)) = ledger.take(1, 0) {
        state.add(permits);
    }
    state.trust_until(base + TTL);
    let last = base + TTL - Duration::from_micros(1);
    for _ in 0..LIMITS.permits() {
        assert_eq!(state.grant(last, Lane::Poll).0, Ok(()));
    }
    assert!(state.grant(base + TTL, Lane::Poll).0.is_err());
    assert_eq!(ledger.take(2, micros(TTL + LIMITS.grace + LIMITS.window)), None);
}
