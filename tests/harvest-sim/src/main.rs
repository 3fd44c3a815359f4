//! Command line of the simulator: serves a generated company.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use harvest_sim::{Company, Limit, Options, Paging, Sim};

const EXAMPLE: &str = "Example:
  cargo run -p harvest-sim -- --users 500 --assignments 5000 --port 4010
  curl -H 'Authorization: Bearer TOKEN' -H 'Harvest-Account-Id: 123456' http://127.0.0.1:4010/v2/users/me

The token is printed at the start; the same --seed always makes the same company.";

/// Simulate Harvest's REST API v2 with a generated company
#[derive(Parser)]
#[command(name = "harvest-sim", version, after_help = EXAMPLE)]
struct Args {
    /// Number of users, including the token's owner
    #[arg(long, default_value_t = 50)]
    users: usize,
    /// Number of project assignments
    #[arg(long, default_value_t = 500)]
    assignments: usize,
    /// Port on 127.0.0.1; 0 selects a free port
    #[arg(long, default_value_t = 4010)]
    port: u16,
    /// Seed of the generated company
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Pagination of lists
    #[arg(long, value_enum, default_value_t = PagingArgument::Cursor)]
    paging: PagingArgument,
    /// Maximum and default page size: 2000 today, 100 until 2022
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    max_per_page: u32,
    /// Include records updated exactly at `updated_since`
    #[arg(long)]
    inclusive: bool,
    /// Disable the limit of 100 requests in 15 seconds
    #[arg(long)]
    no_limit: bool,
    #[command(flatten)]
    id: HarvestId,
}

#[derive(clap::Args)]
#[command(next_help_heading = "OAuth2")]
struct HarvestId {
    /// Print the OAuth2 client settings and a refresh token
    #[arg(long)]
    oauth: bool,
    /// Port of Harvest ID on 127.0.0.1; 0 selects a free port
    #[arg(long, default_value_t = 0)]
    identity_port: u16,
    /// Lifetime of OAuth2 access tokens
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// Replace the refresh token with each refresh
    #[arg(long)]
    rotate: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum PagingArgument {
    Cursor,
    Page,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let company = Company::seeded(args.seed, args.users, args.assignments);
    let options = Options {
        paging: match args.paging {
            PagingArgument::Cursor => Paging::Cursor,
            PagingArgument::Page => Paging::Number,
        },
        max_per_page: usize::try_from(args.max_per_page).unwrap_or(usize::MAX),
        updated_since_inclusive: args.inclusive,
        limit: (!args.no_limit).then(Limit::default),
        ..Options::default()
    };
    let at = |port| (Ipv4Addr::LOCALHOST, port).into();
    let sim = Sim::start_on(at(args.port), at(args.id.identity_port), company, options).await?;
    sim.oauth().set_token_lifetime(args.id.token_lifetime);
    sim.oauth().rotate(args.id.rotate);
    let (url, token, account) = (sim.base_url(), sim.token(), sim.account_id());
    println!("Harvest is at  {url}");
    println!("token          {token}");
    println!("account        {account}");
    println!();
    println!(
        "curl -H 'Authorization: Bearer {token}' -H 'Harvest-Account-Id: {account}' '{url}/users?per_page=2'"
    );
    if let Some(user) = sim.user_ids().get(1) {
        println!(
            "curl -X PATCH -H 'Authorization: Bearer {token}' -H 'Harvest-Account-Id: {account}' \
             -H 'Content-Type: application/json' -d '{{\"last_name\": \"Roe\"}}' '{url}/users/{user}'"
        );
    }
    if args.id.oauth {
        print_oauth(&sim);
    }
    println!();
    println!("Press Ctrl-C to stop.");
    tokio::signal::ctrl_c().await?;
    sim.stop().await;
    Ok(())
}

fn print_oauth(sim: &Sim) {
    let (url, id, secret) = (sim.identity_url(), sim.oauth().client_id(), sim.oauth().client_secret());
    let refresh_token = sim.oauth().issue_refresh_token();
    println!();
    println!("Harvest ID     {url}");
    println!("client id      {id}");
    println!("client secret  {secret}");
    println!("refresh token  {refresh_token}");
    println!();
    println!(
        "curl -d grant_type=refresh_token -d 'client_id={id}' -d 'client_secret={secret}' \
         -d 'refresh_token={refresh_token}' '{url}/api/v2/oauth2/token'"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_definition_is_valid() {
        Args::command().debug_assert();
    }
}
