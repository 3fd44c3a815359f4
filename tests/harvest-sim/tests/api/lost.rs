//! Trouble at the token endpoint, above all answers that are lost after the deed.

use std::time::Duration;

use harvest_sim::{Fault, Grant, Outcome, Refusal};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Desk;
use super::tokens::refused;

const TOKEN: &str = "/oauth2/token";

#[tokio::test]
async fn trouble_before_the_deed_leaves_the_token_alone() {
    let desk = Desk::quiet().await;
    desk.sim.oauth().rotate(true);
    let token = desk.sim.oauth().mint_refresh_token();
    desk.sim.inject(Fault::html(503).on(TOKEN));
    desk.sim.inject(Fault::reset().on(TOKEN));
    desk.sim.inject(Fault::refusal(400).on(TOKEN));
    desk.sim.inject(Fault::refusal(401).on(TOKEN));
    assert_eq!(desk.get("/users/me").await.status().as_u16(), 200, "it is not the token endpoint");
    assert_eq!(desk.refresh(&token).send().await.unwrap().status().as_u16(), 503);
    assert!(desk.refresh(&token).send().await.is_err());
    assert_eq!(refused(desk.refresh(&token)).await, (400, "invalid_grant".to_owned()));
    assert_eq!(refused(desk.refresh(&token)).await, (401, "invalid_client".to_owned()));
    desk.refreshed(&token).await;
    let outcomes: Vec<_> = desk.sim.oauth().requests().into_iter().map(|it| it.outcome).collect();
    assert_eq!(outcomes, [None, None, None, None, Some(Outcome::Granted)]);
}

#[tokio::test]
async fn a_lost_answer_leaves_a_rotated_token_dead() {
    for (fault, kind) in [(Fault::lost_answer(), "reset"), (Fault::cut(), "cut")] {
        let desk = Desk::quiet().await;
        desk.sim.oauth().rotate(true);
        let token = desk.sim.oauth().mint_refresh_token();
        desk.sim.inject(fault.on(TOKEN));
        let lost = match desk.refresh(&token).send().await {
            Ok(answer) => answer.text().await.is_err(),
            Err(_) => true,
        };
        assert!(lost, "{kind}");
        assert_eq!(refused(desk.refresh(&token)).await.1, "invalid_grant", "{kind}");
        let outcomes: Vec<_> = desk.sim.oauth().requests().into_iter().map(|it| it.outcome).collect();
        let refused = Outcome::Refused(Refusal::InvalidGrant);
        assert_eq!(outcomes, [Some(Outcome::Granted), Some(refused)], "{kind}");
    }
}

#[tokio::test]
async fn a_slow_answer_comes_after_the_deed_and_a_delay_before_it() {
    let by = Duration::from_mins(10);
    let held = Fault::held(CancellationToken::new());
    for (fault, done) in [(Fault::slow_answer(by), 1), (held, 1), (Fault::delay(by), 0)] {
        let desk = Desk::quiet().await;
        let oauth = desk.sim.oauth();
        oauth.rotate(true);
        let token = oauth.mint_refresh_token();
        desk.sim.inject(fault.on(TOKEN));
        let waiting = tokio::spawn(desk.refresh(&token).send());
        until(|| oauth.requests().len() == 1 && oauth.count(Grant::RefreshToken, Outcome::Granted) == done)
            .await;
        waiting.abort();
        let again = desk.refresh(&token).send().await.unwrap();
        assert_eq!(again.status().as_u16(), if done == 1 { 400 } else { 200 });
        assert_eq!(oauth.count(Grant::RefreshToken, Outcome::Granted), 1);
    }
}

#[tokio::test]
async fn those_in_flight_at_once_are_counted_until_the_client_goes_away() {
    let desk = Desk::quiet().await;
    let oauth = desk.sim.oauth();
    let token = oauth.mint_refresh_token();
    for _ in 0..3 {
        desk.refreshed(&token).await;
    }
    assert_eq!(oauth.most_in_flight(), 1);
    desk.sim.inject(Fault::delay(Duration::from_mins(10)).on(TOKEN).times(2));
    let waiting = [(); 2].map(|()| tokio::spawn(desk.refresh(&token).send()));
    until(|| oauth.most_in_flight() == 2).await;
    waiting.iter().for_each(JoinHandle::abort);
    // They are gone when the server has noticed.
    until(|| {
        oauth.clear_requests();
        oauth.most_in_flight() == 0
    })
    .await;
    desk.refreshed(&token).await;
    assert_eq!((oauth.most_in_flight(), oauth.requests().len()), (1, 1));
}

/// Waits for what must come, but not for ever.
async fn until(mut come: impl FnMut() -> bool) {
    let waiting = async {
        while !come() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
}

#[tokio::test]
async fn the_answer_can_lack_a_field() {
    let desk = Desk::quiet().await;
    let token = desk.sim.oauth().mint_refresh_token();
    desk.sim.inject(Fault::without_field("refresh_token").on(TOKEN));
    let answer = desk.refresh(&token).send().await.unwrap().text().await.unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert!(answer.get("refresh_token").is_none() && answer.get("access_token").is_some());
}
