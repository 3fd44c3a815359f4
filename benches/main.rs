//! What rosterd's speed and cost are, measured: `cargo bench -- WHAT`. docs/PERFORMANCE.md has what came of it.

#![expect(clippy::unwrap_used, reason = "a measurement that does not work should say so loudly")]

mod accounts;
mod freshness;
mod measured;
mod parts;
mod workloads;

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    // Cargo adds an option of its own.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    match arguments.first().map(String::as_str) {
        Some("workloads") => workloads::measure(&arguments[1..]).await,
        Some("parts") => parts::measure().await,
        Some("accounts") => accounts::measure(&arguments[1..]).await,
        Some("freshness") => freshness::measure(&arguments[1..]).await,
        _ => println!(
            "Usage: cargo bench -- workloads [--large] | parts | accounts [ACCOUNTS SECONDS] | freshness"
        ),
    }
}
