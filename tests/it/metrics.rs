//! `/metrics`: what is promised is there, by its name and labels, and names nobody.

use harvest_sim::{Company, Fault, Options, Sim};

use crate::database::TestDatabase;
use crate::program::Program;

pub async fn scrape(program: &Program) -> String {
    let (status, metrics) = program.probe("/metrics").await;
    assert_eq!(status, 200, "{metrics}");
    metrics
}

fn held(metrics: &str) -> u32 {
    let line = metrics.lines().find(|line| line.starts_with("rosterd_held_deletions")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_is_counted_can_be_scraped() {
    let sim = Sim::start(Company::seeded(5, 60, 120), Options::default()).await.unwrap();
    let database = TestDatabase::new().await;
    let program = Program::new(&sim, database.url());
    let mut daemon = program.start();
    daemon.until("cycle.finished").await;
    sim.inject(Fault::html(500).on("/users?").times(1));
    let owner = sim.token_owner();
    for user in sim.user_ids().into_iter().filter(|user| *user != owner).take(20) {
        sim.delete_user(user);
    }
    daemon.until("deletions.held").await;
    daemon.until("cycle.finished").await;
    let metrics = scrape(&program).await;
    let account = format!("account=\"{}\"", sim.account_id());
    for line in [
        "rosterd_build_info{version=",
        "rosterd_harvest_throttled_total 0",
        "rosterd_outbox_head 180",
        &format!("rosterd_lease_held{{{account}}} 1"),
        &format!("rosterd_cycles_total{{{account},mode=\"full\",outcome=\"ok\"}} 1"),
        &format!("rosterd_cycles_total{{{account},mode=\"full\",outcome=\"held\"}} 1"),
        &format!("rosterd_cycle_duration_seconds_bucket{{{account},mode=\"full\",le=\"3600\"}} 2"),
        &format!("rosterd_changes_total{{{account},resource=\"users\",change=\"created\"}} 60"),
        &format!("rosterd_harvest_requests_total{{{account},endpoint=\"users\",status=\"500\"}} 1"),
        &format!("rosterd_harvest_requests_total{{{account},endpoint=\"users/me\",status=\"200\"}} "),
        &format!("rosterd_last_success_timestamp_seconds{{{account}}} "),
        &format!("rosterd_mirror_rows{{{account},resource=\"users\",state=\"deleted\"}} 0"),
        &format!("rosterd_rejected_records{{{account}}} 0"),
    ] {
        assert!(metrics.contains(&format!("\n{line}")), "no {line} in\n{metrics}");
    }
    assert!(held(&metrics) >= 20, "{metrics}");
    // Every metric says what it is.
    for line in metrics.lines().filter(|line| line.starts_with("# TYPE ")) {
        let name = line.split(' ').nth(2).unwrap();
        assert!(metrics.contains(&format!("# HELP {name} ")), "{name}");
    }
    // An alert on what waits for a person ends when they have spoken.
    program.call(&["deletions", "reject", "--all"]).await.expect(0);
    assert_eq!(held(&scrape(&program).await), 0);
}
