//! Requests that create billable and cost rates. Harvest's API neither changes nor deletes rates.

use super::super::World;
use super::super::fields::Fields;
use super::super::rates::{placed, resource};
use super::super::response::Response;
use super::{created, now};
use crate::state::{Keyed, RateKind, UserId};

pub(super) fn create(
    world: &mut World,
    origin: &str,
    user: UserId,
    kind: RateKind,
    fields: &Fields,
) -> Result<Response, Response> {
    world.company.user(user).ok_or_else(Response::no_record)?;
    let mut reader = fields.reader();
    let amount = reader.amount("amount").flatten();
    if amount.is_none() {
        reader.add_error("amount", "can't be blank");
    }
    let start_date = reader.day("start_date");
    let moment = now(world);
    if start_date.is_some_and(|day| day > moment.now.datetime().date_naive()) {
        reader.add_error("start_date", "can't be in the future");
    }
    reader.finish()?;
    let id = world.company.add_rate(kind, user, amount.unwrap_or_default(), start_date, moment);
    let placed = placed(&world.company, kind, user);
    let rate = placed.iter().find(|rate| rate.id() == id.0).ok_or_else(Response::no_record)?;
    Ok(created(&rate.view(), origin, &format!("users/{user}/{}/{id}", resource(kind))))
}
