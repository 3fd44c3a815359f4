//! POST, PUT, PATCH and DELETE of groups.

use std::collections::BTreeSet;

use axum::http::StatusCode;

use super::answer::Answer;
use super::calls::{Call, not_found, unavailable};
use crate::roster::write::{Write, WriteFields, WriteKind};
use crate::roster::write_policy::OnDelete;
use crate::scim::{GroupIntent, GroupRow, ResourceType, ScimError};
use crate::store::scim_groups::GroupKey;

impl Call {
    pub async fn create_group(&mut self, intent: GroupIntent) -> Result<Answer, ScimError> {
        self.service.notice_ignored(&self.token, &intent.ignored);
        let write = intent.creation()?;
        self.require_unique_group(None, &intent).await?;
        self.require_users(&intent.members.wanted()).await?;
        let Some(id) = self.carry_out(&write).await? else {
            return Err(ScimError::new(502, "Harvest's answer has no role; send the request again"));
        };
        let link = intent.link_change(&GroupRow::default()).columns();
        self.set_link(ResourceType::Group, id, link).await?;
        let group = self.groups(GroupKey::Id(id)).await?.pop();
        let group = group.ok_or_else(|| not_found(ResourceType::Group))?;
        let answer = Answer::group(&group, &self.base, &self.projection);
        Ok(answer.created(group.location(&self.base)))
    }

    /// PUT and PATCH: the response is always the group.
    pub async fn change_group(&mut self, id: &str, intent: GroupIntent) -> Result<Answer, ScimError> {
        self.service.notice_ignored(&self.token, &intent.ignored);
        let group = self.group(id).await?;
        self.require_match(&group.etag())?;
        let (write, link) = (intent.change(&group)?, intent.link_change(&group));
        self.require_unique_group(Some(group.id), &intent).await?;
        let mut added = intent.members.wanted();
        added.retain(|id| !group.members.contains(id));
        self.require_users(&added).await?;
        if let Some(write) = write {
            self.carry_out(&write).await?;
        }
        self.set_link(ResourceType::Group, group.id, link.columns()).await?;
        let group = self.group(id).await?;
        Ok(Answer::group(&group, &self.base, &self.projection))
    }

    /// DELETE takes the role from all users, so that the settings must say so twice.
    pub async fn delete_group(&mut self, id: &str) -> Result<Answer, ScimError> {
        let group = self.group(id).await?;
        self.require_match(&group.etag())?;
        if self.service.options.on_delete != OnDelete::Delete {
            let detail = "groups are deleted only if scim.delete is \"delete\"";
            return Err(ScimError::new(403, detail));
        }
        let delete = Write::of_role(WriteKind::RoleDelete, Some(group.id), WriteFields::default());
        self.carry_out(&delete).await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    }

    /// Refuses a name or an `externalId` that another group has.
    async fn require_unique_group(&self, own: Option<i64>, intent: &GroupIntent) -> Result<(), ScimError> {
        let name = intent.name.value().map(|name| GroupKey::Name(name));
        let external_id = intent.external_id.value().map(|id| GroupKey::ExternalId(id));
        for key in name.into_iter().chain(external_id) {
            if let Some(other) = self.groups(key).await?.iter().find(|group| Some(group.id) != own) {
                let detail = format!("group {} has this displayName or externalId", other.id);
                return Err(ScimError::uniqueness(detail));
            }
        }
        Ok(())
    }

    /// Refuses members whom SCIM does not show.
    async fn require_users(&self, ids: &BTreeSet<i64>) -> Result<(), ScimError> {
        let ids: Vec<i64> = ids.iter().copied().collect();
        if ids.is_empty() || self.service.store.scim_shows(self.account(), &ids).await.map_err(unavailable)? {
            return Ok(());
        }
        Err(ScimError::invalid_value("members has the id of a user who does not exist"))
    }
}
