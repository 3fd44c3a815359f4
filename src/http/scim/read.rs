//! Lists and single users.

use axum::http::StatusCode;
use axum::http::header::{ETAG, HeaderName, IF_MATCH, IF_NONE_MATCH};

use super::answer::Answer;
use super::calls::{Call, unavailable};
use crate::scim::{ListQuery, ScimError, UserQuery, UserRow, list_response};
use crate::store::scim::ScimKey;

impl Call {
    /// `GET /Users/{id}`.
    pub async fn get(&self, id: &str) -> Result<Answer, ScimError> {
        let user = self.user(id).await?;
        if self.names_version(&IF_NONE_MATCH, &user) == Some(true) {
            return Ok(Answer::empty(StatusCode::NOT_MODIFIED).with(ETAG, user.etag()));
        }
        Ok(Answer::user(&user, &self.base, &self.projection))
    }

    /// The header `If-Match`, compared with the row just read. It does not see an edit in Harvest that the mirror lacks.
    pub fn require_match(&self, user: &UserRow) -> Result<(), ScimError> {
        if self.names_version(&IF_MATCH, user) == Some(false) {
            return Err(ScimError::new(412, "the user has another version; read the user again"));
        }
        Ok(())
    }

    /// Whether a header with entity tags has the user's. Tags are compared weakly. `None` without the header.
    fn names_version(&self, header: &HeaderName, user: &UserRow) -> Option<bool> {
        let mut values = self.headers.get_all(header).into_iter().peekable();
        values.peek()?;
        let etag = user.etag();
        let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
        let is_it = |tag: &str| tag.trim() == "*" || strong(tag) == strong(&etag);
        Some(values.filter_map(|value| value.to_str().ok()).any(|value| value.split(',').any(is_it)))
    }

    /// A list of users.
    pub async fn list(&self, query: &ListQuery) -> Result<Answer, ScimError> {
        let (total, users) = match &query.filter {
            None => self.page(query).await?,
            Some(filter) if filter.is_impossible => (0, Vec::new()),
            Some(filter) => match key(filter) {
                Some(key) => {
                    let users = self.users(key).await?;
                    let users: Vec<_> =
                        users.into_iter().filter(|user| !user.is_hidden && filter.matches(user)).collect();
                    (users.len() as u64, part(users, query))
                }
                None => self.matching(filter, query).await?,
            },
        };
        let users = users.iter().map(|user| user.render(&self.base, &query.projection)).collect();
        Ok(Answer::ok(list_response(total, query.start_index, users)))
    }

    async fn page(&self, query: &ListQuery) -> Result<(u64, Vec<UserRow>), ScimError> {
        let offset = i64::try_from(query.start_index.saturating_sub(1)).unwrap_or(i64::MAX);
        let limit = i64::try_from(query.count).unwrap_or(i64::MAX);
        self.service.store.scim_page(self.account(), offset, limit).await.map_err(unavailable)
    }

    async fn matching(
        &self,
        filter: &UserQuery,
        query: &ListQuery,
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

fn part(users: Vec<UserRow>, query: &ListQuery) -> Vec<UserRow> {
    let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    users.into_iter().skip(number(query.start_index.saturating_sub(1))).take(number(query.count)).collect()
}
