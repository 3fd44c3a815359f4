//! `rosterd user`: creates, changes, deactivates, reactivates or deletes a user at Harvest.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::carry_out::{WriteOptions, carry_out};
use super::support::with_mirror;
use super::{output, signals};
use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::roster::write::{Write, WriteFields, WriteKind, is_address};
use crate::settings::Settings;
use crate::sync::error::CycleError;

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

impl Command {
    fn options(&self) -> &WriteOptions {
        match self {
            Self::Create(Create { options, .. }) | Self::Update(Update { options, .. }) => options,
            Self::Deactivate(one) | Self::Reactivate(one) | Self::Delete(one) => &one.options,
        }
    }

    fn kind(&self) -> WriteKind {
        match self {
            Self::Create(_) => WriteKind::UserCreate,
            Self::Update(_) => WriteKind::UserUpdate,
            Self::Deactivate(_) => WriteKind::UserDeactivate,
            Self::Reactivate(_) => WriteKind::UserReactivate,
            Self::Delete(_) => WriteKind::UserDelete,
        }
    }

    fn fields(&self) -> Result<WriteFields, Failure> {
        let mut fields = Map::new();
        let mut set = |name: &str, value: Option<Value>| {
            fields.extend(value.map(|value| (name.to_owned(), value)));
        };
        let roles = |roles: &[String]| (!roles.is_empty()).then(|| json!(roles));
        match self {
            Self::Create(it) => {
                set("email", Some(json!(it.email)));
                set("first_name", Some(json!(it.first)));
                set("last_name", Some(json!(it.last)));
                set("access_roles", roles(&it.access_role));
            }
            Self::Update(it) => {
                set("email", it.email.as_ref().map(|it| json!(it)));
                set("first_name", it.first.as_ref().map(|it| json!(it)));
                set("last_name", it.last.as_ref().map(|it| json!(it)));
                set("telephone", it.telephone.as_ref().map(|it| json!(it)));
                set("access_roles", roles(&it.access_role));
            }
            Self::Deactivate(_) | Self::Reactivate(_) | Self::Delete(_) => {}
        }
        WriteFields::parse(self.kind(), Value::Object(fields))
            .map_err(|error| Failure::new(Exit::Usage, error))
    }

    fn user(&self) -> Option<&str> {
        match self {
            Self::Create(_) => None,
            Self::Update(it) => Some(&it.user),
            Self::Deactivate(one) | Self::Reactivate(one) | Self::Delete(one) => Some(&one.user),
        }
    }
}

pub(super) async fn user(settings: Settings, command: Command) -> Result<(), Failure> {
    command.options().check(&settings)?;
    let (kind, fields) = (command.kind(), command.fields()?);
    let stop = signals::stop_on_signal()?;
    let work = Box::pin(with_mirror(settings, async |app| {
        let account = AccountId(command.options().account(app)?.id);
        let user = match command.user() {
            Some(name) => Some(find_user(app, account, name).await?),
            None => None,
        };
        let line = plan_line(kind, user, &fields.names());
        let write = Write::of_user(kind, user, fields.clone());
        carry_out(app, command.options(), write, line, &stop).await
    }));
    signals::within_drain_limit(&stop, work, || Err(CycleError::Stopped.into())).await
}

/// The line of a write in a plan: field names and ids, no values.
pub(super) fn plan_line(kind: WriteKind, user: Option<i64>, fields: &[String]) -> String {
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
