//! Requests that change users.

use super::super::World;
use super::super::fields::{Fields, Reader};
use super::super::response::Response;
use super::super::view::Renderer;
use super::{created, now};
use crate::state::{Company, RateKind, User, UserId, Visibility};

/// Access roles that a request can add to `manager`. `people_manager` is missing: Harvest derives it from the
/// teammates.
const MANAGER_ACCESS_ROLES: [&str; 7] = [
    "project_creator",
    "billable_rates_manager",
    "managed_projects_invoice_drafter",
    "managed_projects_invoice_manager",
    "client_and_task_manager",
    "time_and_expenses_manager",
    "estimates_manager",
];

pub(super) fn create(world: &mut World, origin: &str, fields: &Fields) -> Result<Response, Response> {
    let mut reader = fields.reader();
    let (first, last) = (reader.required("first_name"), reader.required("last_name"));
    reader.required("email");
    let rates = [("default_hourly_rate", RateKind::Billable), ("cost_rate", RateKind::Cost)]
        .map(|(name, kind)| (kind, reader.amount(name).flatten()));
    let wanted = Wanted::read(&mut reader);
    check_email(world, &mut reader, None, wanted.email.as_deref());
    reader.finish()?;
    let is_active = wanted.is_active != Some(false);
    check_seats(world, is_active)?;
    let moment = now(world);
    let company = &mut world.company;
    let id = company.create_user(&first, &last, moment);
    company.edit_user(id, moment, |user| wanted.apply(user));
    if let Some(email) = wanted.email {
        company.invite(&email);
    }
    for (kind, amount) in rates {
        if let Some(amount) = amount {
            company.add_rate(kind, id, amount, None, moment);
        }
    }
    let user = company.user(id).ok_or_else(Response::no_record)?;
    let renderer = Renderer::new(company, &Visibility::All, world.options.records);
    Ok(created(&renderer.user(user), origin, &format!("users/{id}")))
}

pub(super) fn edit(world: &mut World, id: UserId, fields: &Fields) -> Result<Response, Response> {
    let before = world.company.user(id).ok_or_else(Response::no_record)?.clone();
    let mut reader = fields.reader();
    let wanted = Wanted::read(&mut reader);
    if !before.is_active {
        for (name, wanted, before) in [
            ("first_name", &wanted.first_name, &before.first_name),
            ("last_name", &wanted.last_name, &before.last_name),
            ("email", &wanted.email, &before.email),
        ] {
            if wanted.as_ref().is_some_and(|wanted| wanted != before) {
                reader.add_error(name, "can't be updated if the user is inactive");
            }
        }
    }
    check_email(world, &mut reader, Some(id), wanted.email.as_deref());
    reader.finish()?;
    check_seats(world, wanted.is_active == Some(true) && !before.is_active)?;

    let (moment, records) = (now(world), world.options.records);
    let company = &mut world.company;
    let mut after = before.clone();
    wanted.apply(&mut after);
    let only_roles = User { roles: before.roles.clone(), ..after.clone() } == before;
    let moment_of_edit = if only_roles { moment.keeping_updated_at() } else { moment };
    // A request that changes no value keeps `updated_at`.
    if after != before {
        company.edit_user(id, moment_of_edit, |user| wanted.apply(user));
    }
    if before.is_active && !after.is_active {
        company.archive_user(id, moment);
    }
    if before.has_access("manager") && !after.has_access("manager") {
        company.set_teammates(id, [], moment);
    }
    shown(company, id, records)
}

pub(super) fn delete(world: &mut World, id: UserId) -> Result<Response, Response> {
    let (moment, records) = (now(world), world.options.records);
    let company = &mut world.company;
    company.user(id).ok_or_else(Response::no_record)?;
    if company.has_time(|user, _| user == id) {
        let message = "This user is not removable. It still has time entries and/or expenses.";
        return Err(Response::unprocessable(message));
    }
    // The response contains the deleted record, with the time of the deletion as `updated_at`.
    company.edit_user(id, moment, |_| ());
    let last = shown(company, id, records);
    company.delete_user(id, moment);
    last
}

fn shown(company: &Company, id: UserId, records: crate::options::Records) -> Result<Response, Response> {
    let user = company.user(id).ok_or_else(Response::no_record)?;
    Ok(Response::ok(&Renderer::new(company, &Visibility::All, records).user(user)))
}

fn check_email(world: &World, reader: &mut Reader<'_>, own: Option<UserId>, email: Option<&str>) {
    let Some(email) = email.filter(|email| !email.is_empty()) else { return };
    if !email.contains('@') {
        return reader.add_error("email", "is invalid");
    }
    let same = |user: &User| user.email.eq_ignore_ascii_case(email) && Some(user.id()) != own;
    if world.company.users().rows().iter().any(same) {
        reader.add_error("email", "has already been taken");
    }
}

/// Checks whether the account has a seat for one more active user.
fn check_seats(world: &World, needed: bool) -> Result<(), Response> {
    let active = || world.company.users().rows().iter().filter(|user| user.is_active).count();
    if needed && world.options.seats.is_some_and(|seats| active() >= seats) {
        return Err(Response::unprocessable("You have reached the maximum number of users for your plan."));
    }
    Ok(())
}

/// The fields in a request.
struct Wanted {
    first_name: Option<String>,
    last_name: Option<String>,
    email: Option<String>,
    telephone: Option<String>,
    timezone: Option<String>,
    has_access_to_all_future_projects: Option<bool>,
    is_contractor: Option<bool>,
    is_active: Option<bool>,
    weekly_capacity: Option<i64>,
    roles: Option<Vec<String>>,
    access_roles: Option<Vec<String>>,
}

impl Wanted {
    fn read(reader: &mut Reader<'_>) -> Self {
        let wanted = Self {
            first_name: reader.present("first_name"),
            last_name: reader.present("last_name"),
            email: reader.present("email"),
            telephone: reader.text("telephone"),
            timezone: reader.present("timezone"),
            has_access_to_all_future_projects: reader.flag("has_access_to_all_future_projects"),
            is_contractor: reader.flag("is_contractor"),
            is_active: reader.flag("is_active"),
            weekly_capacity: reader.whole("weekly_capacity"),
            roles: reader.texts("roles"),
            access_roles: reader.texts("access_roles"),
        };
        if wanted.access_roles.as_deref().is_some_and(|roles| !are_valid(roles)) {
            reader.add_error("access_roles", "is invalid");
        }
        wanted
    }

    fn apply(&self, user: &mut User) {
        let set = |field: &mut String, wanted: &Option<String>| {
            if let Some(wanted) = wanted {
                field.clone_from(wanted);
            }
        };
        set(&mut user.first_name, &self.first_name);
        set(&mut user.last_name, &self.last_name);
        set(&mut user.email, &self.email);
        set(&mut user.telephone, &self.telephone);
        set(&mut user.timezone, &self.timezone);
        let flag = |field: &mut bool, wanted: Option<bool>| *field = wanted.unwrap_or(*field);
        flag(&mut user.has_access_to_all_future_projects, self.has_access_to_all_future_projects);
        flag(&mut user.is_contractor, self.is_contractor);
        flag(&mut user.is_active, self.is_active);
        user.weekly_capacity = self.weekly_capacity.unwrap_or(user.weekly_capacity);
        if let Some(roles) = &self.roles {
            user.roles.clone_from(roles);
        }
        if let Some(access_roles) = &self.access_roles {
            let was_people_manager = user.has_access("people_manager");
            user.access_roles.clone_from(access_roles);
            if was_people_manager && user.has_access("manager") {
                user.access_roles.push("people_manager".to_owned());
            }
        }
    }
}

/// One of `administrator`, `manager` and `member`. Only `manager` can have additional access roles.
fn are_valid(access_roles: &[String]) -> bool {
    match access_roles {
        [level] => ["administrator", "manager", "member"].contains(&level.as_str()),
        roles => {
            let (levels, more): (Vec<_>, Vec<_>) = roles.iter().partition(|role| *role == "manager");
            levels.len() == 1 && more.iter().all(|role| MANAGER_ACCESS_ROLES.contains(&role.as_str()))
        }
    }
}
