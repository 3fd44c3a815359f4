//! `rosterd assignment`: assigns users to projects at Harvest.

use clap::{Args, Subcommand};
use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::carry_out::{WriteOptions, carry_out, given_fields};
use super::output;
use super::user::find_user;
use crate::app::{App, Exit, Failure};
use crate::roster::AccountId;
use crate::roster::write::{Write, WriteKind};
use crate::settings::Settings;

#[derive(Subcommand)]
pub(super) enum Command {
    /// Assign a user to a project
    #[command(after_help = "Example:\n  rosterd assignment add ada@example.com WEB --manager")]
    Add(Change),
    /// Change an assignment
    #[command(after_help = "Rates and budgets need \"rates\" in write.allow.\n\nExample:\n  \
                            rosterd assignment update ada@example.com WEB --rate 120.00")]
    Update(Change),
    /// Take a user off a project
    #[command(
        after_help = "Harvest refuses to delete an assignment with time entries: add --archive.\n\nExample:\n  \
                            rosterd assignment remove ada@example.com WEB --archive"
    )]
    Remove(Remove),
}

#[derive(Args)]
pub(super) struct Change {
    #[command(flatten)]
    target: Target,
    /// Make the user a manager of the project
    #[arg(long, conflicts_with = "not_manager")]
    manager: bool,
    /// Make the user no manager of the project
    #[arg(long)]
    not_manager: bool,
    /// Hourly rate for this project
    #[arg(long, value_name = "AMOUNT", conflicts_with = "default_rates")]
    rate: Option<Decimal>,
    /// Bill the user's default rate
    #[arg(long)]
    default_rates: bool,
    /// Budget for this project, in hours or money
    #[arg(long, value_name = "AMOUNT")]
    budget: Option<Decimal>,
    #[command(flatten)]
    options: WriteOptions,
}

#[derive(Args)]
pub(super) struct Remove {
    #[command(flatten)]
    target: Target,
    /// Archive the assignment instead of deleting it
    #[arg(long)]
    archive: bool,
    #[command(flatten)]
    options: WriteOptions,
}

#[derive(Args)]
struct Target {
    /// The user's id or e-mail address
    #[arg(value_name = "ID|EMAIL")]
    user: String,
    /// The project's id, code or name
    #[arg(value_name = "PROJECT")]
    project: String,
}

impl Command {
    fn kind(&self) -> WriteKind {
        match self {
            Self::Add(_) => WriteKind::AssignmentAdd,
            Self::Update(_) => WriteKind::AssignmentUpdate,
            Self::Remove(Remove { archive: true, .. }) => WriteKind::AssignmentArchive,
            Self::Remove(_) => WriteKind::AssignmentRemove,
        }
    }

    fn target(&self) -> (&Target, &WriteOptions) {
        match self {
            Self::Add(change) | Self::Update(change) => (&change.target, &change.options),
            Self::Remove(remove) => (&remove.target, &remove.options),
        }
    }

    /// The fields to write. Null: not to be written.
    fn fields(&self) -> Result<Value, Failure> {
        let (Self::Add(change) | Self::Update(change)) = self else { return Ok(json!({})) };
        let default_rates = change.default_rates.then_some(true);
        Ok(json!({
            "is_project_manager": (change.manager || change.not_manager).then_some(change.manager),
            // Harvest ignores the rate of an assignment that uses default rates.
            "use_default_rates": change.rate.map_or(default_rates, |_| Some(false)),
            "hourly_rate": change.rate.map(number).transpose()?,
            "budget": change.budget.map(number).transpose()?,
        }))
    }
}

fn number(amount: Decimal) -> Result<Value, Failure> {
    serde_json::from_str(&amount.normalize().to_string()).map_err(|error| Failure::new(Exit::Usage, error))
}

pub(super) async fn assignment(settings: Settings, command: Command) -> Result<(), Failure> {
    let (kind, (target, options)) = (command.kind(), command.target());
    options.check(&settings)?;
    let fields = given_fields(kind, command.fields()?)?;
    carry_out(settings, options, async |app, account| {
        let user = find_user(app, account, &target.user).await?;
        let project = find_project(app, account, &target.project).await?;
        let assignment = match kind {
            WriteKind::AssignmentAdd => None,
            _ => Some(find_assignment(app, account, user, project).await?),
        };
        let line = match kind {
            WriteKind::AssignmentAdd => format!("would assign user {user} to project {project}"),
            WriteKind::AssignmentUpdate => {
                format!("would change {} of user {user} in project {project}", fields.names().join(", "))
            }
            WriteKind::AssignmentArchive => {
                format!("would archive user {user}'s assignment to project {project}")
            }
            _ => format!("would delete user {user}'s assignment to project {project} permanently"),
        };
        let write = Write { project: Some(project), assignment, ..Write::of_user(kind, Some(user), fields) };
        Ok((write, line))
    })
    .await
}

async fn find_project(app: &App, account: AccountId, name: &str) -> Result<i64, Failure> {
    if let Ok(id) = name.parse() {
        return Ok(id);
    }
    let found = app.store.projects_named(account, name).await?;
    match found.as_slice() {
        [(id, ..)] => Ok(*id),
        [] => {
            let advice = "the mirror has no project with this code or name and at least one assignment; give the \
                          project's id";
            Err(Failure::new(Exit::Differences, advice))
        }
        several => {
            for (id, code, name) in several {
                let code = code.as_deref().filter(|code| !code.is_empty());
                let code = code.map(|code| format!(" [{code}]")).unwrap_or_default();
                output::message(format_args!("project {id}{code} {}", name.as_deref().unwrap_or_default()));
            }
            Err(Failure::new(
                Exit::Data,
                "several projects have this code or name; give the id of one of them",
            ))
        }
    }
}

async fn find_assignment(app: &App, account: AccountId, user: i64, project: i64) -> Result<i64, Failure> {
    let found = app.store.assignments_to(account, user, project).await?;
    found.first().map(|(id, _)| *id).ok_or_else(|| {
        let advice = format!("the mirror has no assignment of user {user} to project {project}");
        Failure::new(Exit::Differences, advice)
    })
}
