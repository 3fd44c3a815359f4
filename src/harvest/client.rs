//! The endpoints that rosterd uses: users and assignments as lists and by id, the lists' totals, rates, the token's
//! owner and the company.

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::api::{Client, is_gone, parse, request};
use super::envelope::Envelope;
use super::error::HarvestError;
use super::json::escape_invalid_utf8;
use super::pages::ListReader;
use super::rate_limit::Priority;
use super::transport::WriteAccess;
use super::wire::{self, Decode, UnreadableRecord};
use super::write::Writer;
use crate::roster::watermark::ReadStart;
use crate::roster::write::Write;
use crate::roster::{ADMINISTRATOR, Assignment, Company, Fetched, Resource, SourceRequest, User};

/// The token's owner, from `/v2/users/me`.
#[derive(Clone, Deserialize)]
#[serde(from = "OwnerOnTheWire")]
pub struct TokenOwner {
    pub(crate) id: i64,
    /// Empty if Harvest does not send them.
    pub(crate) access_roles: Vec<String>,
}

impl TokenOwner {
    /// Whether Harvest shows all records to the token.
    pub(crate) fn is_administrator(&self) -> bool {
        self.access_roles.iter().any(|role| role == ADMINISTRATOR)
    }
}

/// `users/me` in both formats: before 2022, `is_admin` took the place of the access roles.
#[derive(Deserialize)]
struct OwnerOnTheWire {
    id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    access_roles: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    is_admin: bool,
}

impl From<OwnerOnTheWire> for TokenOwner {
    fn from(OwnerOnTheWire { id, mut access_roles, is_admin }: OwnerOnTheWire) -> Self {
        if is_admin && access_roles.is_empty() {
            access_roles.push(ADMINISTRATOR.to_owned());
        }
        Self { id, access_roles }
    }
}

pub enum Lookup<R> {
    Found(Box<Fetched<R>>),
    /// Harvest has the record, but rosterd cannot read it.
    Unreadable(UnreadableRecord),
    /// Harvest's own JSON 404 to this request: the record was deleted.
    Gone(SourceRequest),
    /// A 403, or a 404 that is not Harvest's own: the record may exist.
    Unclear(HarvestError),
}

impl Client {
    pub fn writer(&self, access: WriteAccess) -> Writer {
        Writer::new(self.clone(), access)
    }

    /// Reads a list: all records, or those changed since (Harvest seems to compare with "later than"). It never filters
    /// by `is_active`, which would hide every deactivation.
    pub(crate) fn list<R: Decode>(
        &self,
        updated_since: Option<DateTime<Utc>>,
        priority: Priority,
    ) -> ListReader<R> {
        let mut url = self.url(R::RESOURCE.name());
        if let Some(since) = updated_since {
            // With `Z`, because an unencoded `+` of an offset means a space, to which Harvest answers 400.
            let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
            url.query_pairs_mut().append_pair("updated_since", &since);
        }
        self.pages(url, priority)
    }

    /// Reads the assignments of one user, active and archived.
    pub(crate) fn assignments_of(&self, user: i64, priority: Priority) -> ListReader<Assignment> {
        let mut url = self.url(Resource::Assignments.name());
        url.query_pairs_mut().append_pair("user_id", &user.to_string());
        self.pages(url, priority)
    }

    pub(crate) fn rates_of<R: Decode>(&self, user: i64, priority: Priority) -> ListReader<R> {
        self.pages(self.url(&format!("users/{user}/{}", R::RESOURCE.name())), priority)
    }

    fn pages<R: Decode>(&self, mut url: Url, priority: Priority) -> ListReader<R> {
        let per_page = self.per_page();
        url.query_pairs_mut().append_pair("per_page", &per_page.to_string());
        ListReader::new(self.clone(), url, priority)
    }

    /// The number of records in a list without filters; `None` if Harvest does not send it.
    pub(crate) async fn total(
        &self,
        list: Resource,
        priority: Priority,
    ) -> Result<Option<u64>, HarvestError> {
        let what = list.name();
        let mut url = self.url(what);
        url.query_pairs_mut().append_pair("per_page", "1");
        let response = self.get_json(&url, what, priority).await?;
        let page = Envelope::parse(&response.body, what).map_err(HarvestError::protocol(what))?;
        Ok(page.total)
    }

    pub(crate) async fn me(&self, priority: Priority) -> Result<TokenOwner, HarvestError> {
        self.me_and_clocks(priority).await.map(|(me, _)| me)
    }

    /// The token's owner, and both clocks at the time of the request.
    pub(crate) async fn me_and_clocks(
        &self,
        priority: Priority,
    ) -> Result<(TokenOwner, ReadStart), HarvestError> {
        self.single("users/me", priority).await
    }

    /// The company, without texts that PostgreSQL cannot store.
    pub(crate) async fn company(&self, priority: Priority) -> Result<Company, HarvestError> {
        let (Company { name, base_uri }, _) = self.single("company", priority).await?;
        let storable = |text: Option<String>| text.filter(|text| !text.contains('\0'));
        Ok(Company { name: storable(name), base_uri: storable(base_uri) })
    }

    pub(crate) async fn user(&self, id: i64, priority: Priority) -> Result<Lookup<User>, HarvestError> {
        self.lookup(&format!("users/{id}"), priority).await
    }

    /// One assignment by id. Harvest's only endpoint for it is below its project.
    pub(crate) async fn assignment(
        &self,
        project: i64,
        id: i64,
        priority: Priority,
    ) -> Result<Lookup<Assignment>, HarvestError> {
        self.lookup(&format!("projects/{project}/user_assignments/{id}"), priority).await
    }

    pub(crate) async fn lookup_written<R: Decode>(
        &self,
        write: &Write,
        priority: Priority,
    ) -> Result<Lookup<R>, HarvestError> {
        self.lookup(&write.path().unwrap_or_default(), priority).await
    }

    pub(crate) async fn rate<R: Decode>(
        &self,
        user: i64,
        id: i64,
        priority: Priority,
    ) -> Result<Lookup<R>, HarvestError> {
        self.lookup(&format!("users/{user}/{}/{id}", R::RESOURCE.name()), priority).await
    }

    /// The request that proves the deletion of a project, and with it of all its assignments; `None` without a proof.
    pub(crate) async fn gone_project(
        &self,
        id: i64,
        priority: Priority,
    ) -> Result<Option<SourceRequest>, HarvestError> {
        let what = format!("projects/{id}");
        let url = self.url(&what);
        let response = self.transport.get(&url, &what, priority).await?;
        match response.status {
            StatusCode::UNAUTHORIZED => Err(HarvestError::Refused { account: self.account(), what }),
            _ => Ok(is_gone(&response).then(|| request(&url, 1, response.sent))),
        }
    }

    async fn lookup<R: Decode>(&self, what: &str, priority: Priority) -> Result<Lookup<R>, HarvestError> {
        let url = self.url(what);
        let response = self.transport.get(&url, what, priority).await?;
        match response.status {
            _ if is_gone(&response) => Ok(Lookup::Gone(request(&url, 1, response.sent))),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
                Ok(Lookup::Unclear(self.refusal(&response, what)))
            }
            _ => {
                let response = self.expect_json(response, what)?;
                let body = escape_invalid_utf8(&response.body);
                let request = request(&url, 1, response.sent);
                Ok(match wire::read(parse(&body, what)?, self.with_pay_data(), &request) {
                    Ok(fetched) => Lookup::Found(Box::new(fetched)),
                    Err(unreadable) => Lookup::Unreadable(unreadable),
                })
            }
        }
    }

    async fn single<T: DeserializeOwned>(
        &self,
        what: &str,
        priority: Priority,
    ) -> Result<(T, ReadStart), HarvestError> {
        let response = self.get_json(&self.url(what), what, priority).await?;
        Ok((parse(&response.body, what)?, response.start))
    }
}

fn null_as_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
