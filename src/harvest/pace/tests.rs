use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits { requests: 100, window: Duration::from_secs(15), reserve: 5, grace: SECOND };

/// A pace with `permits` that nobody takes away, and its bell.
fn pace(permits: u32) -> (Pace, Arc<Notify>) {
    let bell = Arc::new(Notify::new());
    let pace = Pace::new(LIMITS, Duration::ZERO, bell.clone());
    pace.add(permits);
    pace.trust_until(Instant::now() + 1_000_000 * SECOND);
    (pace, bell)
}

/// How long it took to get so many permits.
async fn waited_for(pace: &Pace, lane: Lane, permits: u32) -> Duration {
    let before = Instant::now();
    for _ in 0..permits {
        pace.permit(lane).await.answered();
    }
    before.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_local_pace_sends_its_whole_budget_and_then_waits_for_the_window() {
    let pace = Pace::local(LIMITS);
    assert!(waited_for(&pace, Lane::Poll, 95).await < LIMITS.window / 2);
    let next = waited_for(&pace, Lane::Poll, 1).await;
    assert!(next > LIMITS.window / 2, "{next:?}");
}

#[tokio::test(start_paused = true)]
async fn bursts_are_smoothed() {
    let pace = Pace::local(LIMITS);
    assert!(waited_for(&pace, Lane::Poll, 10).await < SECOND / 100);
    assert!(waited_for(&pace, Lane::Poll, 20).await >= SECOND, "three times the allowed rate");
}

#[tokio::test(start_paused = true)]
async fn a_429_silences_every_lane_until_retry_after_has_passed() {
    let (pace, _) = pace(95);
    pace.permit(Lane::Poll).await.throttled(Throttle::TooMany, Some(30 * SECOND));
    let before = Instant::now();
    let _permits = tokio::join!(pace.permit(Lane::Poll), pace.permit(Lane::Background));
    assert!(before.elapsed() >= 30 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn without_retry_after_the_silence_lasts_a_window() {
    let (pace, _) = pace(95);
    pace.permit(Lane::Poll).await.throttled(Throttle::Unavailable, None);
    assert!(waited_for(&pace, Lane::Poll, 1).await >= LIMITS.window);
}

#[tokio::test(start_paused = true)]
async fn a_429_halves_what_is_used_and_a_503_does_not() {
    for (throttle, permits) in [(Throttle::TooMany, 47), (Throttle::Unavailable, 95)] {
        let (pace, _) = pace(95);
        pace.permit(Lane::Poll).await.throttled(throttle, Some(20 * SECOND)); // its slot is free by then
        waited_for(&pace, Lane::Poll, 1).await;
        assert!(waited_for(&pace, Lane::Poll, permits - 1).await < LIMITS.window / 2);
        assert!(waited_for(&pace, Lane::Poll, 1).await > LIMITS.window / 2);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_granted_once_trust_has_run_out_and_much_once_it_is_back() {
    let bounded = Pace::new(LIMITS, Duration::ZERO, Arc::default());
    bounded.add(10);
    bounded.trust_until(Instant::now() + SECOND);
    bounded.permit(Lane::Poll).await.answered();
    tokio::time::advance(SECOND).await;
    let early = tokio::time::timeout(60 * SECOND, bounded.permit(Lane::Poll)).await;
    assert!(early.is_err());
    bounded.trust_until(Instant::now() + SECOND);
    bounded.permit(Lane::Poll).await.answered();
}

#[tokio::test(start_paused = true)]
async fn the_keeper_is_rung_when_requests_wait_for_permits_and_only_then() {
    let (pace, bell) = pace(1);
    pace.permit(Lane::Poll).await.answered();
    assert_eq!(pace.needs(), Needs::default());
    let waiting = tokio::spawn({
        let pace = pace.clone();
        async move { pace.permit(Lane::Poll).await.answered() }
    });
    bell.notified().await;
    assert!(pace.needs().permits);
    assert!(!pace.needs().permits, "asked once");
    pace.add(1);
    waiting.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_handed_to_the_keeper_until_it_is_recorded() {
    let (pace, bell) = pace(95);
    pace.permit(Lane::Poll).await.throttled(Throttle::TooMany, Some(9 * SECOND));
    bell.notified().await;
    let until = pace.needs().pause.unwrap();
    assert_eq!(until, Instant::now() + 9 * SECOND);
    assert_eq!(pace.needs().pause, Some(until), "the database was away: try again");
    pace.pause_recorded(until);
    assert_eq!(pace.needs().pause, None);
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_while_it_waits_takes_nothing() {
    let (pace, _) = pace(1);
    let permit = pace.permit(Lane::Poll).await;
    for lane in [Lane::Poll, Lane::Background] {
        assert!(tokio::time::timeout(SECOND, pace.permit(lane)).await.is_err());
    }
    permit.answered();
    assert!(waited_for(&pace, Lane::Background, 1).await < LIMITS.window + SECOND);
}

#[tokio::test(start_paused = true)]
async fn room_for_several_is_waited_for_without_taking_any() {
    let (pace, _) = pace(9);
    let room =
        async |requests| tokio::time::timeout(SECOND, pace.room(Lane::Background, requests)).await.is_ok();
    waited_for(&pace, Lane::Background, 4).await;
    assert!(room(2).await && room(2).await, "six are the background's part, and nothing was taken");
    waited_for(&pace, Lane::Background, 1).await;
    assert!(!room(2).await);
    assert!(room(1).await);
    tokio::time::sleep(LIMITS.cooldown()).await;
    assert!(room(99).await, "more than its part is as much as its part");
}

#[tokio::test(start_paused = true)]
async fn a_poll_overtakes_a_background_read_that_has_its_share() {
    let (pace, _) = pace(9);
    waited_for(&pace, Lane::Background, 6).await;
    let background = tokio::time::timeout(SECOND, pace.permit(Lane::Background));
    let (background, poll) = tokio::join!(background, waited_for(&pace, Lane::Poll, 3));
    assert!(background.is_err());
    assert!(poll < SECOND);
}

#[tokio::test(start_paused = true)]
async fn callers_are_served_in_the_order_they_came() {
    let (pace, _) = pace(1);
    let served = Arc::new(StdMutex::new(Vec::new()));
    let callers: Vec<_> = (0..5)
        .map(|caller| {
            let (pace, served) = (pace.clone(), served.clone());
            tokio::spawn(async move {
                let permit = pace.permit(Lane::Poll).await;
                served.lock().unwrap().push(caller);
                permit.answered();
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(*served.lock().unwrap(), [0, 1, 2, 3, 4]);
}

#[tokio::test(start_paused = true)]
async fn only_idle_permits_are_surplus_and_can_be_withdrawn() {
    let (pace, _) = pace(30);
    assert_eq!(pace.surplus(), 0, "a first review only begins to watch");
    waited_for(&pace, Lane::Poll, 12).await;
    assert_eq!(pace.surplus(), 18);
    assert!(!pace.withdraw(19));
    assert!(pace.withdraw(18));
    assert!(tokio::time::timeout(SECOND, pace.permit(Lane::Poll)).await.is_err());
    assert_eq!(pace.surplus(), 0, "somebody waits");
}

#[tokio::test(start_paused = true)]
async fn a_closed_pace_grants_nothing_and_says_how_long_its_permits_must_rest() {
    let (pace, _) = pace(10);
    assert_eq!(pace.close(), Duration::ZERO);
    assert!(tokio::time::timeout(60 * SECOND, pace.permit(Lane::Poll)).await.is_err());

    let answered = Pace::local(LIMITS);
    answered.permit(Lane::Poll).await.answered();
    assert_eq!(answered.close(), LIMITS.cooldown());

    let flying = Pace::local(LIMITS);
    let _permit = flying.permit(Lane::Poll).await;
    assert_eq!(flying.close(), LIMITS.grace + LIMITS.cooldown());
}
