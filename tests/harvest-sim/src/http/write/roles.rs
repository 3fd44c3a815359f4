//! Job roles. Who has one is in the person's record by name, and in the role's by id.

use super::super::World;
use super::super::answer::Answer;
use super::super::fields::{Fields, Reader};
use super::{created, now};
use crate::state::{RoleId, UserId};

pub(super) fn create(world: &mut World, origin: &str, fields: &Fields) -> Result<Answer, Answer> {
    let mut reader = fields.reader();
    let name = reader.required("name");
    check_name(world, &mut reader, None, &name);
    let people = people(world, &mut reader)?;
    reader.finish()?;
    let moment = now(world);
    let id = world.company.new_role(&name, moment);
    members(world, id, people);
    let role = super::super::roles::view(&world.company, id).ok_or_else(Answer::no_record)?;
    Ok(created(&role, origin, &format!("roles/{id}")))
}

pub(super) fn edit(world: &mut World, id: RoleId, fields: &Fields) -> Result<Answer, Answer> {
    world.company.role(id).ok_or_else(Answer::no_record)?;
    let mut reader = fields.reader();
    let name = reader.present("name");
    check_name(world, &mut reader, Some(id), name.as_deref().unwrap_or_default());
    let people = people(world, &mut reader)?;
    reader.finish()?;
    if let Some(name) = name {
        let (moment, touch) = (now(world), world.options.roles_touch_users);
        world.company.rename_role(id, &name, moment, moment.silently_unless(touch));
    }
    members(world, id, people);
    shown(world, id)
}

pub(super) fn delete(world: &mut World, id: RoleId) -> Result<Answer, Answer> {
    let last = shown(world, id)?;
    let person = now(world).silently_unless(world.options.roles_touch_users);
    world.company.delete_role(id, person);
    Ok(last)
}

fn shown(world: &World, id: RoleId) -> Result<Answer, Answer> {
    super::super::roles::view(&world.company, id).map(|role| Answer::ok(&role)).ok_or_else(Answer::no_record)
}

fn check_name(world: &World, reader: &mut Reader<'_>, own: Option<RoleId>, name: &str) {
    let taken = world.company.roles().rows().iter().any(|role| Some(role.id) != own && role.name == name);
    if taken {
        reader.fault("name", "has already been taken");
    }
}

/// The people that a request names; one who is not there is a 404.
fn people(world: &World, reader: &mut Reader<'_>) -> Result<Option<Vec<UserId>>, Answer> {
    let Some(ids) = reader.ids("user_ids") else { return Ok(None) };
    let people: Vec<UserId> = ids.into_iter().map(UserId).collect();
    if people.iter().any(|&user| world.company.user(user).is_none()) {
        return Err(Answer::no_record());
    }
    Ok(Some(people))
}

/// Exactly these people have the role, where a request names any.
fn members(world: &mut World, id: RoleId, people: Option<Vec<UserId>>) {
    if let Some(people) = people {
        let person = now(world).silently_unless(world.options.roles_touch_users);
        world.company.set_members(id, &people, person);
    }
}
