//! PUT, PATCH and DELETE.

use axum::http::StatusCode;
use serde_json::{Map, json};

use super::answer::Answer;
use super::calls::{Call, not_found};
use crate::roster::write::{Write, WriteFields, WriteKind};
use crate::roster::write_policy::OnDelete;
use crate::scim::{Changes, LinkChange, ResourceType, ScimError, UserIntent, UserRow};
use crate::store::scim::ScimKey;

impl Call {
    /// PUT and PATCH: the response is always the user.
    pub async fn change(&mut self, id: &str, intent: UserIntent) -> Result<Answer, ScimError> {
        self.service.notice_ignored(&self.token, &intent.ignored);
        let user = self.user(id).await?;
        self.require_match(&user.etag())?;
        self.apply(&user, &intent.changes(&user)?, None).await?;
        let user = self.read_again(user.id).await?;
        self.answer_with(&user).await
    }

    /// Carries out changes in their order; the links come last. `is_removed` hides or shows the user.
    pub async fn apply(
        &mut self,
        user: &UserRow,
        changes: &Changes,
        is_removed: Option<bool>,
    ) -> Result<(), ScimError> {
        let email = changes.writes.iter().find_map(|write| write.fields.text("email"));
        self.require_unique(user.id, email, &changes.link).await?;
        if !changes.left_out.is_empty() {
            tracing::info!(
                event = "scim.left_out",
                account_id = self.account().0,
                user_id = user.id,
                token = self.token.name,
                fields = changes.left_out.join(","),
                "Harvest does not change these fields of an archived user"
            );
        }
        for write in &changes.writes {
            self.carry_out(write).await?;
        }
        let mut link = changes.link.columns();
        link.extend(is_removed.map(|is_removed| ("removed".to_owned(), json!(is_removed))));
        self.set_link(ResourceType::User, user.id, link).await
    }

    async fn require_unique(
        &self,
        user: i64,
        email: Option<&str>,
        link: &LinkChange,
    ) -> Result<(), ScimError> {
        let names = email.into_iter().chain(link.user_name.value().map(String::as_str)).map(ScimKey::Name);
        let external_id = link.external_id.value().map(|id| ScimKey::ExternalId(id));
        for key in names.chain(external_id) {
            let users = self.users(key).await?;
            if let Some(other) = users.iter().find(|other| other.id != user && !other.is_hidden) {
                return Err(taken(other.id));
            }
        }
        Ok(())
    }

    pub async fn read_again(&self, user: i64) -> Result<UserRow, ScimError> {
        self.users(ScimKey::Id(user)).await?.pop().ok_or_else(|| not_found(ResourceType::User))
    }

    /// DELETE. A second one finds no user.
    pub async fn delete(&mut self, id: &str) -> Result<Answer, ScimError> {
        let user = self.user(id).await?;
        self.require_match(&user.etag())?;
        let write = |kind| Write::of_user(kind, Some(user.id), WriteFields::default());
        match self.service.options.on_delete {
            OnDelete::Refuse => return Err(ScimError::new(403, "scim.delete is \"refuse\"")),
            OnDelete::Delete => match self.carry_out(&write(WriteKind::UserDelete)).await {
                Ok(_) => return Ok(Answer::empty(StatusCode::NO_CONTENT)),
                // Harvest keeps users with time entries.
                Err(error) if error.status == 400 => {}
                Err(error) => return Err(error),
            },
            OnDelete::Deactivate => {}
        }
        self.carry_out(&write(WriteKind::UserDeactivate)).await?;
        let link = Map::from_iter([("removed".to_owned(), json!(true))]);
        self.set_link(ResourceType::User, user.id, link).await?;
        Ok(Answer::empty(StatusCode::NO_CONTENT))
    }
}

pub(super) fn taken(user: i64) -> ScimError {
    ScimError::uniqueness(format!("user {user} has this e-mail address, userName or externalId"))
}
