//! Lists and single users.

use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::answer::Answer;
use super::calls::{Call, unavailable};
use crate::scim::{ListQuery, ScimError, UserQuery, UserRow, list_response};
use crate::store::scim::ScimKey;
use crate::store::scim_groups::GroupKey;

impl Call {
    pub async fn get(&self, id: &str) -> Result<Answer, ScimError> {
        let user = self.user(id).await?;
        if let Some(answer) = self.not_modified(&user.etag()) {
            return Ok(answer);
        }
        self.answer_with(&user).await
    }

    /// The response without the resource, if the client has the version of this entity tag (`If-None-Match`).
    pub fn not_modified(&self, etag: &str) -> Option<Answer> {
        let is_known = self.names_version(&IF_NONE_MATCH, etag) == Some(true);
        is_known.then(|| Answer::empty(StatusCode::NOT_MODIFIED).with(ETAG, etag.to_owned()))
    }

    /// The header `If-Match`, compared with the row just read. It does not see an edit in Harvest that the mirror lacks.
    pub fn require_match(&self, etag: &str) -> Result<(), ScimError> {
        if self.names_version(&IF_MATCH, etag) == Some(false) {
            return Err(ScimError::new(412, "the resource has another version; read it again"));
        }
        Ok(())
    }

    /// Whether a header with entity tags has this one. Tags are compared weakly. `None` without the header.
    fn names_version(&self, header: &HeaderName, etag: &str) -> Option<bool> {
        let mut values = self.headers.get_all(header).into_iter().peekable();
        values.peek()?;
        let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let is_it = |tag: &str| tag.trim() == "*" || strong(tag) == strong(etag);
        Some(values.filter_map(|value| value.to_str().ok()).any(|value| value.split(',').any(is_it)))
    }

    pub async fn answer_with(&self, user: &UserRow) -> Result<Answer, ScimError> {
        let groups = self.groups_of([user.id], &self.projection).await?.remove(&user.id).unwrap_or_default();
        Ok(Answer::user(user, &groups, &self.base, &self.projection))
    }

    pub async fn list(&self, query: &ListQuery<UserQuery>) -> Result<Answer, ScimError> {
        let (total, users) = match &query.filter {
            None => self.page(query).await?,
            Some(filter) if filter.is_impossible => (0, Vec::new()),
            Some(filter) => self.filtered(filter, query).await?,
        };
        let groups = self.groups_of(users.iter().map(|user| user.id), &query.projection).await?;
        let groups = |user: &UserRow| groups.get(&user.id).map(Vec::as_slice).unwrap_or_default();
        let users = users.iter().map(|user| user.render(groups(user), &self.base, &query.projection));
        Ok(Answer::ok(list_response(total, query.start_index, users.collect())))
    }

    async fn filtered(
        &self,
        filter: &UserQuery,
        query: &ListQuery<UserQuery>,
    ) -> Result<(u64, Vec<UserRow>), ScimError> {
        let members = match filter.group {
            Some(_) if !self.service.options.with_roles => {
                return Err(ScimError::invalid_filter("there are no groups (scim.groups)"));
            }
            Some(group) => Some(self.groups(GroupKey::Id(group)).await?.pop().unwrap_or_default().members),
            None => None,
        };
        let Some(key) = key(filter).or(members.as_deref().map(ScimKey::Ids)) else {
            return self.matching(filter, query).await;
        };
        let mut users = self.users(key).await?;
        users.retain(|user| !user.is_hidden && filter.matches(user));
        users.retain(|user| members.as_ref().is_none_or(|members| members.contains(&user.id)));
        Ok((users.len() as u64, part(users, query.start_index, query.count)))
    }

    async fn page(&self, query: &ListQuery<UserQuery>) -> Result<(u64, Vec<UserRow>), ScimError> {
        let offset = i64::try_from(query.start_index.saturating_sub(1)).unwrap_or(i64::MAX);
        let limit = i64::try_from(query.count).unwrap_or(i64::MAX);
        self.service.store.scim_page(self.account(), offset, limit).await.map_err(unavailable)
    }

    async fn matching(
        &self,
        filter: &UserQuery,
        query: &ListQuery<UserQuery>,
    ) -> Result<(u64, Vec<UserRow>), ScimError> {
        let (offset, limit) = (query.start_index.saturating_sub(1), query.count);
        let matching = self.service.store.scim_matching(
            self.account(),
            filter.active,
            |user| filter.matches(user),
            offset,
            limit,
        );
        matching.await.map_err(unavailable)
    }
}

/// The key by which the fewest users are found. The filter's other conditions are checked on these.
fn key(filter: &UserQuery) -> Option<ScimKey<'_>> {
    let UserQuery { id, external_id, user_name, email, .. } = filter;
    let name = user_name.as_deref().or(email.as_deref());
    id.map(ScimKey::Id).or(external_id.as_deref().map(ScimKey::ExternalId)).or(name.map(ScimKey::Name))
}

/// The part of a list from the position `start_index`, at most `count`.
pub(super) fn part<T>(list: Vec<T>, start_index: u64, count: u64) -> Vec<T> {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    list.into_iter().skip(number(start_index.saturating_sub(1))).take(number(count)).collect()
}
