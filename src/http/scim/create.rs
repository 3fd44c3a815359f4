//! POST of a user: a new one, a former one who returns, or the repetition of a request whose response was lost.

use super::answer::Answer;
use super::calls::{Call, unavailable};
use super::change::taken;
use crate::roster::write::{Write, WriteFields, WriteKind};
use crate::scim::{Creation, ResourceType, ScimError, UserIntent, UserRow};
use crate::store::scim::ScimKey;

impl Call {
    pub async fn create(&mut self, intent: UserIntent) -> Result<Answer, ScimError> {
        self.service.notice_ignored(&self.token, &intent.ignored);
        let id = match self.known(&intent).await? {
            Some(user) if user.is_hidden => {
                self.apply(&user, &intent.rehire(&user)?, Some(false)).await?;
                user.id
            }
            Some(user) => {
                let unanswered =
                    self.service.store.scim_unanswered(self.account(), &self.token.name, user.id);
                let unanswered = unanswered.await.map_err(unavailable)?.ok_or_else(|| taken(user.id))?;
                self.apply(&user, &intent.changes(&user)?, None).await?;
                self.answered = Some(unanswered);
                user.id
            }
            None => self.create_new(intent.creation()?).await?,
        };
        let user = self.read_again(id).await?;
        Ok(self.answer_with(&user).await?.created(user.location(&self.base)))
    }

    /// The user who has one of the names. A user whom SCIM shows counts more than a hidden one.
    async fn known(&self, intent: &UserIntent) -> Result<Option<UserRow>, ScimError> {
        let names = [intent.user_name.value(), intent.email.value()];
        let names = names.into_iter().flatten().map(|name| ScimKey::Name(name));
        let external_id = intent.external_id.value().map(|id| ScimKey::ExternalId(id));
        let mut known: Vec<UserRow> = Vec::new();
        for key in names.chain(external_id) {
            known.extend(self.users(key).await?);
        }
        known.sort_by_key(|user| user.is_hidden);
        Ok(known.into_iter().next())
    }

    async fn create_new(&mut self, creation: Creation) -> Result<i64, ScimError> {
        let Creation { fields, link, then_deactivate } = creation;
        let created = self.carry_out(&Write::of_user(WriteKind::UserCreate, None, fields)).await?;
        let Some(id) = created else {
            let detail =
                "Harvest has created the user, but rosterd could not read the answer; send the request again";
            return Err(ScimError::new(502, detail));
        };
        if then_deactivate {
            let deactivate = Write::of_user(WriteKind::UserDeactivate, Some(id), WriteFields::default());
            self.carry_out(&deactivate).await?;
        }
        self.set_link(ResourceType::User, id, link.columns()).await?;
        Ok(id)
    }
}
