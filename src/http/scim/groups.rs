//! Groups: job roles of Harvest, if `scim.groups` is `"roles"`.

use std::collections::HashMap;

use super::answer::Answer;
use super::calls::{Call, id_of, not_found, unavailable};
use super::read::part;
use crate::scim::{
    GroupQuery, GroupRow, ListQuery, Projection, ResourceType, ScimError, UserGroup, list_response,
};
use crate::store::scim_groups::GroupKey;

impl Call {
    pub async fn groups(&self, key: GroupKey<'_>) -> Result<Vec<GroupRow>, ScimError> {
        self.service.store.scim_groups(self.account(), key).await.map_err(unavailable)
    }

    pub async fn group(&self, id: &str) -> Result<GroupRow, ScimError> {
        let groups = match id_of(id) {
            Some(id) => self.groups(GroupKey::Id(id)).await?,
            None => Vec::new(),
        };
        groups.into_iter().next().ok_or_else(|| not_found(ResourceType::Group))
    }

    pub async fn get_group(&self, id: &str) -> Result<Answer, ScimError> {
        let group = self.group(id).await?;
        if let Some(answer) = self.not_modified(&group.etag()) {
            return Ok(answer);
        }
        Ok(Answer::group(&group, &self.base, &self.projection))
    }

    /// A list of groups. An account has few roles, so that the filter is applied to all of them.
    pub async fn list_groups(&self, query: &ListQuery<GroupQuery>) -> Result<Answer, ScimError> {
        let key = match &query.filter {
            Some(GroupQuery { id: Some(id), .. }) => GroupKey::Id(*id),
            Some(GroupQuery { display_name: Some(name), .. }) => GroupKey::Name(name),
            Some(GroupQuery { external_id: Some(id), .. }) => GroupKey::ExternalId(id),
            _ => GroupKey::All,
        };
        let mut groups = self.groups(key).await?;
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
