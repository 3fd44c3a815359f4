//! `rosterd user`: creates, changes, deactivates, reactivates or deletes a user at Harvest.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::carry_out::{WriteOptions, carry_out, given_fields};
use super::output;
use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::roster::write::{Write, WriteKind, is_address};
use crate::settings::Settings;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Create a user; Harvest sends an invitation
    #[command(after_help = "A seat may be charged.\n\nExample:\n  \
                            rosterd user create --email ada@example.com --first Ada --last Lovelace --dry-run")]
    Create(Create),
    /// Change names, address or telephone
    #[command(after_help = "Example:\n  rosterd user update ada@example.com --last King")]
    Update(Update),
    /// Archive a user, who loses access and all assignments
    #[command(
        after_help = "Harvest also archives the user's assignments and does not give them back.\n\nExample:\n  \
                            rosterd user deactivate ada@example.com --yes"
    )]
    Deactivate(One),
    /// Give an archived user access again
    #[command(
        after_help = "Harvest does not restore the assignments.\n\nExample:\n  rosterd user reactivate 1001"
    )]
    Reactivate(One),
    /// Delete a user who never tracked time
    #[command(
        after_help = "Harvest refuses to delete a user with time entries or expenses: deactivate the user \
                            instead. Needs \"delete\" in write.allow.\n\nExample:\n  rosterd user delete 1001"
    )]
    Delete(One),
}

#[derive(Args)]
pub(super) struct Create {
    /// E-mail address, to which Harvest sends the invitation
    #[arg(long, value_name = "ADDRESS")]
    email: String,
    /// First name
    #[arg(long, value_name = "NAME")]
    first: String,
    /// Last name
    #[arg(long, value_name = "NAME")]
    last: String,
    /// Access role instead of member; can be repeated
    #[arg(long, value_name = "ROLE")]
    access_role: Vec<String>,
    #[command(flatten)]
    options: WriteOptions,
}

#[derive(Args)]
pub(super) struct Update {
    /// The user's id or e-mail address
    #[arg(value_name = "ID|EMAIL")]
    user: String,
    /// New first name
    #[arg(long, value_name = "NAME")]
    first: Option<String>,
    /// New last name
    #[arg(long, value_name = "NAME")]
    last: Option<String>,
    /// New e-mail address
    #[arg(long, value_name = "ADDRESS")]
    email: Option<String>,
    /// New telephone number; "" removes it
    #[arg(long, value_name = "NUMBER")]
    telephone: Option<String>,
    /// New access roles, instead of all present ones
    #[arg(long, value_name = "ROLE")]
    access_role: Vec<String>,
    #[command(flatten)]
    options: WriteOptions,
}

#[derive(Args)]
pub(super) struct One {
    /// The user's id or e-mail address
    #[arg(value_name = "ID|EMAIL")]
    user: String,
    #[command(flatten)]
    options: WriteOptions,
}

/// What a command asks for.
struct Asked<'a> {
    kind: WriteKind,
    /// `None` for a user to create.
    user: Option<&'a str>,
    /// Null: not to be written.
    fields: Value,
    options: &'a WriteOptions,
}

impl One {
    fn asked(&self, kind: WriteKind) -> Asked<'_> {
        Asked { kind, user: Some(&self.user), fields: json!({}), options: &self.options }
    }
}

impl Command {
    fn asked(&self) -> Asked<'_> {
        let roles = |roles: &[String]| (!roles.is_empty()).then(|| json!(roles));
        match self {
            Self::Create(Create { email, first, last, access_role, options }) => Asked {
                kind: WriteKind::UserCreate,
                user: None,
                fields: json!({
                    "email": email, "first_name": first, "last_name": last, "access_roles": roles(access_role),
                }),
                options,
            },
            Self::Update(Update { user, first, last, email, telephone, access_role, options }) => Asked {
                kind: WriteKind::UserUpdate,
                user: Some(user),
                fields: json!({
                    "email": email, "first_name": first, "last_name": last, "telephone": telephone,
                    "access_roles": roles(access_role),
                }),
                options,
            },
            Self::Deactivate(one) => one.asked(WriteKind::UserDeactivate),
            Self::Reactivate(one) => one.asked(WriteKind::UserReactivate),
            Self::Delete(one) => one.asked(WriteKind::UserDelete),
        }
    }
}

pub(super) async fn user(settings: Settings, command: Command) -> Result<(), Failure> {
    let Asked { kind, user, fields, options } = command.asked();
    options.check(&settings)?;
    let fields = given_fields(kind, fields)?;
    carry_out(settings, options, async |app, account| {
        let user = match user {
            Some(name) => Some(find_user(app, account, name).await?),
            None => None,
        };
        let line = plan_line(kind, user, &fields.names());
        Ok((Write::of_user(kind, user, fields), line))
    })
    .await
}

/// The line of a write in a plan: field names and ids, no values.
fn plan_line(kind: WriteKind, user: Option<i64>, fields: &[String]) -> String {
    let user = user.map(|id| format!("user {id}")).unwrap_or_default();
    match kind {
        WriteKind::UserCreate => {
            "would create a user: Harvest sends an invitation to the address now, and a seat may be charged"
                .to_owned()
        }
        WriteKind::UserUpdate => format!("would change {} of {user}", fields.join(", ")),
        WriteKind::UserDeactivate => format!("would deactivate {user}, with all assignments"),
        WriteKind::UserReactivate => format!("would reactivate {user}, without the former assignments"),
        _ => format!("would delete {user} permanently"),
    }
}

/// The id of the user with this id or e-mail address.
pub(super) async fn find_user(app: &App, account: AccountId, name: &str) -> Result<i64, Failure> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    if !is_address(name) {
        return Err(Failure::new(Exit::Usage, "give the user's id or e-mail address"));
    }
    match app.store.live_users_by_email(account, name).await?.as_slice() {
        [id] => Ok(*id),
        [] => {
            let advice =
                "the mirror has no user with this e-mail address; run `rosterd sync`, or give the user's id";
            Err(Failure::new(Exit::Differences, advice))
        }
        several => {
            for id in several {
                output::message(format_args!("user {id}"));
            }
            let advice = "several users have this e-mail address; give the id of one of them";
            Err(Failure::new(Exit::Data, advice))
        }
    }
}
