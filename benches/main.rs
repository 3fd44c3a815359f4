//! Benchmarks: `cargo bench -- WHAT`. docs/PERFORMANCE.md has the results.

#![expect(clippy::unwrap_used, reason = "a benchmark that fails should panic")]

mod accounts;
mod freshness;
mod measured;
mod page;
mod parts;
mod peers;
mod postgres;
mod scim;
mod webhooks;
mod workloads;
mod writes;

const USAGE: &str = "\
Usage: cargo bench -- WHAT

  workloads [--large]           resources of rosterd for first reads, changes and idle polls
  peers [ROUNDS]                dlt and rosterd in turn, and a raw COPY of the same rows; PEERS_PYTHON names a
                                Python that has dlt (default: python3)
  parts                         decoding, comparing and storing separately
  accounts [ACCOUNTS SECONDS]   many accounts in one process
  freshness [SECONDS]           time from an edit to its event
  webhooks [BACKLOG]            events per second, memory for a backlog, and time from a commit to the receipt, also with
                                32 endpoints of which one hangs
  page [ACCOUNTS ASSIGNMENTS]   time of the status page, and looks at the database for visitors at once
  writes                        time of one write, and writes per window of Harvest's limit
  scim                          times of SCIM requests to 50,000 users, and a storm of changes";

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Cargo adds the option `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("workloads") => workloads::measure(&arguments[1..]).await,
        Some("parts") => parts::measure().await,
        Some("accounts") => accounts::measure(&arguments[1..]).await,
        Some("peers") => peers::measure(&arguments[1..]).await,
        Some("freshness") => freshness::measure(&arguments[1..]).await,
        Some("webhooks") => webhooks::measure(&arguments[1..]).await,
        Some("page") => page::measure(&arguments[1..]).await,
        Some("writes") => writes::measure().await,
        Some("scim") => scim::measure().await,
        _ => println!("{USAGE}"),
    }
}
