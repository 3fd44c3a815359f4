//! Groups: job roles of Harvest, if `scim.groups` is `"roles"`.

use std::collections::HashMap;

use super::answer::Answer;
use super::calls::{Call, RETRY_SECONDS, id_of, unavailable};
use super::read::part;
use crate::scim::{GroupQuery, GroupRow, ListQuery, Projection, ScimError, UserGroup, list_response};
use crate::store::scim_groups::GroupKey;

impl Call {
    /// Before the first list of roles, an empty mirror would make a directory create every group again.
    pub async fn require_roles(&self) -> Result<(), ScimError> {
        let are_read = self.service.store.scim_roles_are_read(self.account()).await.map_err(unavailable)?;
        let detail = "rosterd has not read the job roles of this Harvest account yet; try again later";
        are_read.then_some(()).ok_or_else(|| ScimError::unavailable(RETRY_SECONDS, detail))
    }

    pub async fn groups(&self, key: GroupKey<'_>, with_members: bool) -> Result<Vec<GroupRow>, ScimError> {
        self.service.store.scim_groups(self.account(), key, with_members).await.map_err(unavailable)
    }

    pub async fn group(&self, id: &str, with_members: bool) -> Result<GroupRow, ScimError> {
        let groups = match id_of(id) {
            Some(id) => self.groups(GroupKey::Id(id), with_members).await?,
            None => Vec::new(),
        };
        groups.into_iter().next().ok_or_else(no_group)
    }

    pub async fn get_group(&self, id: &str) -> Result<Answer, ScimError> {
        let group = self.group(id, self.projection.wants("members")).await?;
        if let Some(answer) = self.not_modified(&group.etag()) {
            return Ok(answer);
        }
        Ok(Answer::group(&group, &self.base, &self.projection))
    }

    /// A list of groups. An account has few roles, so that the filter is applied to all of them.
    pub async fn list_groups(&self, query: &ListQuery<GroupQuery>) -> Result<Answer, ScimError> {
        let compares_members = query.filter.as_ref().is_some_and(|filter| filter.member.is_some());
        let with_members = query.count > 0 && query.projection.wants("members") || compares_members;
        let key = match &query.filter {
            Some(GroupQuery { id: Some(id), .. }) => GroupKey::Id(*id),
            Some(GroupQuery { display_name: Some(name), .. }) => GroupKey::Name(name),
            Some(GroupQuery { external_id: Some(id), .. }) => GroupKey::ExternalId(id),
            _ => GroupKey::All,
        };
        let mut groups = self.groups(key, with_members).await?;
        groups.retain(|group| query.filter.as_ref().is_none_or(|filter| filter.matches(group)));
        let total = groups.len() as u64;
        let groups = part(groups, query.start_index, query.count);
        let groups = groups.iter().map(|group| group.render(&self.base, &query.projection)).collect();
        Ok(Answer::ok(list_response(total, query.start_index, groups)))
    }

    /// The groups of these users, if the response has them.
    pub async fn groups_of(
        &self,
        users: impl IntoIterator<Item = i64>,
        projection: &Projection,
    ) -> Result<HashMap<i64, Vec<UserGroup>>, ScimError> {
        let users: Vec<i64> = users.into_iter().collect();
        if !self.service.options.with_roles || users.is_empty() || !projection.wants("groups") {
            return Ok(HashMap::new());
        }
        self.service.store.scim_groups_of(self.account(), &users).await.map_err(unavailable)
    }
}

pub(super) fn no_group() -> ScimError {
    ScimError::new(404, "there is no such group")
}
