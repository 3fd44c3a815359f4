//! Requests that change job roles. A user record names its roles; a role record lists the ids of its users.

use super::super::World;
use super::super::fields::{Fields, Reader};
use super::super::response::Response;
use super::{created, now};
use crate::state::{RoleId, UserId};

pub(super) fn create(world: &mut World, origin: &str, fields: &Fields) -> Result<Response, Response> {
    let mut reader = fields.reader();
    let name = reader.required("name");
    check_name(world, &mut reader, None, &name);
    let users = read_users(world, &mut reader)?;
    reader.finish()?;
    let moment = now(world);
    let id = world.company.new_role(&name, moment);
    set_members(world, id, users);
    let role = super::super::roles::view(&world.company, id).ok_or_else(Response::no_record)?;
    Ok(created(&role, origin, &format!("roles/{id}")))
}

pub(super) fn edit(world: &mut World, id: RoleId, fields: &Fields) -> Result<Response, Response> {
    world.company.role(id).ok_or_else(Response::no_record)?;
    let mut reader = fields.reader();
    let name = reader.present("name");
    check_name(world, &mut reader, Some(id), name.as_deref().unwrap_or_default());
    let users = read_users(world, &mut reader)?;
    reader.finish()?;
    if let Some(name) = name {
        let moment = now(world);
        world.company.rename_role(id, &name, moment);
    }
    set_members(world, id, users);
    shown(world, id)
}

pub(super) fn delete(world: &mut World, id: RoleId) -> Result<Response, Response> {
    let last = shown(world, id)?;
    let moment = now(world);
    world.company.delete_role(id, moment);
    Ok(last)
}

fn shown(world: &World, id: RoleId) -> Result<Response, Response> {
    super::super::roles::view(&world.company, id)
        .map(|role| Response::ok(&role))
        .ok_or_else(Response::no_record)
}

fn check_name(world: &World, reader: &mut Reader<'_>, own: Option<RoleId>, name: &str) {
    let taken = world.company.roles().rows().iter().any(|role| Some(role.id) != own && role.name == name);
    if taken {
        reader.add_error("name", "has already been taken");
    }
}

/// The users in a request. An unknown user is a 404.
fn read_users(world: &World, reader: &mut Reader<'_>) -> Result<Option<Vec<UserId>>, Response> {
    let Some(ids) = reader.ids("user_ids") else { return Ok(None) };
    let users: Vec<UserId> = ids.into_iter().map(UserId).collect();
    if users.iter().any(|&user| world.company.user(user).is_none()) {
        return Err(Response::no_record());
    }
    Ok(Some(users))
}

/// Gives the role to exactly these users, if the request has a list of users.
fn set_members(world: &mut World, id: RoleId, users: Option<Vec<UserId>>) {
    if let Some(users) = users {
        let moment = now(world);
        world.company.set_members(id, &users, moment);
    }
}
