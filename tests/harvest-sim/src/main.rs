//! Serves a made-up company to anyone with curl.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use harvest_sim::{Company, Limit, Options, Paging, Sim};

const EXAMPLE: &str = "Example:
  cargo run -p harvest-sim -- --users 500 --assignments 5000 --port 4010
  curl -H 'Authorization: Bearer TOKEN' -H 'Harvest-Account-Id: 123456' http://127.0.0.1:4010/v2/users/me

The token is printed at the start; the same --seed always makes the same company.";

/// Harvest's REST API v2 on this machine, with a company of any size.
#[derive(Parser)]
#[command(name = "harvest-sim", version, after_help = EXAMPLE)]
struct Args {
    /// How many people, the administrator who owns the token among them
    #[arg(long, default_value_t = 50)]
    users: usize,
    /// How many places on projects
    #[arg(long, default_value_t = 500)]
    assignments: usize,
    /// The port on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 4010)]
    port: u16,
    /// Which company is made
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How lists lead on
    #[arg(long, value_enum, default_value_t = Walk::Cursor)]
    paging: Walk,
    /// The largest page and the default one: 2000 today, 100 until 2022
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    max_per_page: u32,
    /// Lets `updated_since` also find what was updated in that very second
    #[arg(long)]
    inclusive: bool,
    /// Lets any number of requests through instead of 100 in 15 seconds
    #[arg(long)]
    no_limit: bool,
    #[command(flatten)]
    id: HarvestId,
}

#[derive(clap::Args)]
#[command(next_help_heading = "OAuth2")]
struct HarvestId {
    /// Prints what an OAuth2 client is configured with, and a first refresh token
    #[arg(long)]
    oauth: bool,
    /// The port of Harvest ID on 127.0.0.1; 0 takes a free one
    #[arg(long, default_value_t = 0)]
    identity_port: u16,
    /// How long OAuth2's access tokens live
    #[arg(long, value_name = "TIME", default_value = "14d", value_parser = humantime::parse_duration)]
    token_lifetime: Duration,
    /// Lets each refresh make a new refresh token and end the old one
    #[arg(long)]
    rotate: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Walk {
    Cursor,
    Page,
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let args = Args::parse();
    let company = Company::seeded(args.seed, args.users, args.assignments);
    let options = Options {
        paging: match args.paging {
            Walk::Cursor => Paging::Cursor,
            Walk::Page => Paging::Number,
        },
        max_per_page: usize::try_from(args.max_per_page).unwrap_or(usize::MAX),
        updated_since_inclusive: args.inclusive,
        limit: (!args.no_limit).then(Limit::default),
        ..Options::default()
    };
    let at = |port| (Ipv4Addr::LOCALHOST, port).into();
    let sim = Sim::start_at_both(at(args.port), at(args.id.identity_port), company, options).await?;
    sim.oauth().lifetime(args.id.token_lifetime);
    sim.oauth().rotate(args.id.rotate);
    let (url, token, account) = (sim.base_url(), sim.token(), sim.account_id());
    println!("Harvest is at  {url}");
    println!("token          {token}");
    println!("account        {account}");
    println!();
    println!(
        "curl -H 'Authorization: Bearer {token}' -H 'Harvest-Account-Id: {account}' '{url}/users?per_page=2'"
    );
    if let Some(person) = sim.user_ids().get(1) {
        println!(
            "curl -X PATCH -H 'Authorization: Bearer {token}' -H 'Harvest-Account-Id: {account}' \
             -H 'Content-Type: application/json' -d '{{\"last_name\": \"Roe\"}}' '{url}/users/{person}'"
        );
    }
    if args.id.oauth {
        print_oauth(&sim);
    }
    println!();
    println!("Ctrl-C stops it.");
    tokio::signal::ctrl_c().await?;
    sim.stop().await;
    Ok(())
}

fn print_oauth(sim: &Sim) {
    let (url, id, secret) = (sim.identity_url(), sim.oauth().client_id(), sim.oauth().client_secret());
    let refresh_token = sim.oauth().mint_refresh_token();
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
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
