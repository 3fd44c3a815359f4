//! What rosterd asks of Harvest: two lists and their totals, a person, an assignment, rates, whose the token is, and
//! the company.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use chrono::{DateTime, SecondsFormat, Utc};
use reqwest::{StatusCode, Url};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use super::auth::Auth;
use super::error::HarvestError;
use super::pace::{Lane, Pace};
use super::pages::{Pages, not_as_expected, total_of, with_query};
use super::transport::{Answer, Options, Transport};
use super::unicode;
use super::wire::{self, Decode, Read};
use crate::clock::Clock;
use crate::progress::Progress;
use crate::roster::order::Sent;
use crate::roster::watermark::ReadStart;
use crate::roster::{ADMINISTRATOR, AccountId, Assignment, Company, Order, Request, Resource, User};

/// What Harvest allowed until 2022, and what a server that answers 422 to more is asked for.
const OLD_PER_PAGE: u32 = 100;

/// One account at Harvest. Clones are the same one.
#[derive(Clone)]
pub struct Client {
    transport: Arc<Transport>,
    per_page: Arc<AtomicU32>,
    with_pay: bool,
}

/// The token's owner, from `/v2/users/me`.
#[derive(Clone, Deserialize)]
#[serde(from = "MeOnTheWire")]
pub struct Me {
    /// Id of the user in this account.
    pub id: i64,
    /// Empty where Harvest does not send them.
    pub access_roles: Vec<String>,
}

impl Me {
    /// Whether the token sees everybody.
    pub fn is_administrator(&self) -> bool {
        self.access_roles.iter().any(|role| role == ADMINISTRATOR)
    }
}

/// `users/me` as it is on the wire: until 2022 a flag said what the access roles say now.
#[derive(Deserialize)]
struct MeOnTheWire {
    id: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    access_roles: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    is_admin: bool,
}

impl From<MeOnTheWire> for Me {
    fn from(MeOnTheWire { id, mut access_roles, is_admin }: MeOnTheWire) -> Self {
        if is_admin && access_roles.is_empty() {
            access_roles.push(ADMINISTRATOR.to_owned());
        }
        Self { id, access_roles }
    }
}

/// What a `GET` by id says.
pub enum Lookup<R> {
    /// It is there.
    Found(Box<Read<R>>),
    /// It is there and cannot be read.
    Unreadable(wire::Rejected),
    /// Harvest's own JSON 404 to this: it is gone.
    Gone(Request),
    /// A 403, or a 404 that is not Harvest's own: it does not say whether the record exists.
    Unclear(HarvestError),
}

impl Client {
    /// `per_page`: 1 to 2000. `with_pay`: whether pay may be read at all.
    pub fn new(
        options: &Options,
        account: AccountId,
        auth: Auth,
        per_page: u32,
        with_pay: bool,
        pace: Pace,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let transport = Arc::new(Transport::new(options, account, auth, pace, clock));
        Self { transport, per_page: Arc::new(per_page.into()), with_pay }
    }

    /// The account.
    pub fn account(&self) -> AccountId {
        self.transport.account
    }

    /// Requests sent so far, retries included.
    pub fn requests(&self) -> u64 {
        self.transport.requests()
    }

    /// Where each response counts as progress of this account's work.
    pub fn progress(&self) -> &Progress {
        &self.transport.progress
    }

    /// The order in which they were sent.
    pub fn order(&self) -> &Order {
        &self.transport.order
    }

    /// Waits until so many requests could leave; safe to drop, at no cost.
    pub async fn room(&self, lane: Lane, requests: u32) {
        self.transport.room(lane, requests).await;
    }

    /// Walks a list: everything, or what changed since (strictly later, as Harvest seems to read it; never an
    /// `is_active` filter, which would hide every deactivation).
    pub fn list<R: Decode>(&self, updated_since: Option<DateTime<Utc>>, lane: Lane) -> Pages<R> {
        let mut url = self.url(R::RESOURCE.name());
        if let Some(since) = updated_since {
            // With `Z`: Harvest answers 400 to a space, and an unencoded `+` is one.
            let since = since.to_rfc3339_opts(SecondsFormat::Secs, true);
            url.query_pairs_mut().append_pair("updated_since", &since);
        }
        self.pages(url, lane)
    }

    /// Walks the assignments of one person, active and archived.
    pub fn assignments_of(&self, user: i64, lane: Lane) -> Pages<Assignment> {
        let mut url = self.url(Resource::Assignments.name());
        url.query_pairs_mut().append_pair("user_id", &user.to_string());
        self.pages(url, lane)
    }

    /// Walks a history of one person: their billable or their cost rates.
    pub fn rates_of<R: Decode>(&self, user: i64, lane: Lane) -> Pages<R> {
        self.pages(self.url(&format!("users/{user}/{}", R::RESOURCE.name())), lane)
    }

    fn pages<R: Decode>(&self, mut url: Url, lane: Lane) -> Pages<R> {
        let per_page = self.per_page.load(Ordering::Relaxed);
        url.query_pairs_mut().append_pair("per_page", &per_page.to_string());
        Pages::new(self.clone(), url, lane)
    }

    /// How many rows an unfiltered list has, where Harvest says so.
    pub async fn total(&self, list: Resource, lane: Lane) -> Result<Option<u64>, HarvestError> {
        let what = list.name();
        let mut url = self.url(what);
        url.query_pairs_mut().append_pair("per_page", "1");
        let answer = self.expect_json(self.transport.get(&url, what, lane).await?, what)?;
        total_of(&unicode::escaped(&answer.body), what)
            .map_err(|problem| HarvestError::Protocol { what: what.to_owned(), problem })
    }

    /// The token's owner.
    pub async fn me(&self, lane: Lane) -> Result<Me, HarvestError> {
        self.me_and_clocks(lane).await.map(|(me, _)| me)
    }

    /// The token's owner, and both clocks when that was asked.
    pub async fn me_and_clocks(&self, lane: Lane) -> Result<(Me, ReadStart), HarvestError> {
        self.single("users/me", lane).await
    }

    /// The company, without what PostgreSQL cannot store.
    pub async fn company(&self, lane: Lane) -> Result<Company, HarvestError> {
        let (Company { name, base_uri }, _) = self.single("company", lane).await?;
        let storable = |text: Option<String>| text.filter(|text| !text.contains('\0'));
        Ok(Company { name: storable(name), base_uri: storable(base_uri) })
    }

    /// One person by id.
    pub async fn user(&self, id: i64, lane: Lane) -> Result<Lookup<User>, HarvestError> {
        self.lookup(&format!("users/{id}"), lane).await
    }

    /// One assignment; Harvest knows it under its project only.
    pub async fn assignment(
        &self,
        project: i64,
        id: i64,
        lane: Lane,
    ) -> Result<Lookup<Assignment>, HarvestError> {
        self.lookup(&format!("projects/{project}/user_assignments/{id}"), lane).await
    }

    /// One rate of a user's.
    pub async fn rate<R: Decode>(&self, user: i64, id: i64, lane: Lane) -> Result<Lookup<R>, HarvestError> {
        self.lookup(&format!("users/{user}/{}/{id}", R::RESOURCE.name()), lane).await
    }

    /// The request that says for sure that a project is gone, and with it all its assignments.
    pub async fn gone_project(&self, id: i64, lane: Lane) -> Result<Option<Request>, HarvestError> {
        let what = format!("projects/{id}");
        let url = self.url(&what);
        let answer = self.transport.get(&url, &what, lane).await?;
        match answer.status {
            StatusCode::UNAUTHORIZED => Err(HarvestError::Refused { account: self.account(), what }),
            _ => Ok(is_gone(&answer).then(|| request(&url, 1, answer.sent))),
        }
    }

    async fn lookup<R: Decode>(&self, what: &str, lane: Lane) -> Result<Lookup<R>, HarvestError> {
        let url = self.url(what);
        let answer = self.transport.get(&url, what, lane).await?;
        match answer.status {
            _ if is_gone(&answer) => Ok(Lookup::Gone(request(&url, 1, answer.sent))),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => Ok(Lookup::Unclear(self.refusal(&answer, what))),
            _ => {
                let Answer { body, sent, .. } = self.expect_json(answer, what)?;
                let body = unicode::escaped(&body);
                Ok(match wire::read(parse(&body, what)?, self.with_pay, &request(&url, 1, sent)) {
                    Ok(read) => Lookup::Found(Box::new(read)),
                    Err(rejected) => Lookup::Unreadable(rejected),
                })
            }
        }
    }

    async fn single<T: DeserializeOwned>(
        &self,
        what: &str,
        lane: Lane,
    ) -> Result<(T, ReadStart), HarvestError> {
        let answer = self.transport.get(&self.url(what), what, lane).await?;
        let answer = self.expect_json(answer, what)?;
        Ok((parse(&answer.body, what)?, answer.start))
    }

    /// A page, and the address at which it was found: where 2,000 a page is too much, 100 is asked for.
    pub(super) async fn list_page(
        &self,
        url: Url,
        what: &str,
        lane: Lane,
    ) -> Result<(Url, Answer), HarvestError> {
        let answer = self.transport.get(&url, what, lane).await?;
        let asked = self.per_page.load(Ordering::Relaxed);
        if answer.status != StatusCode::UNPROCESSABLE_ENTITY || asked <= OLD_PER_PAGE {
            return Ok((url, self.expect_json(answer, what)?));
        }
        tracing::info!(
            account_id = self.account().0,
            "Harvest refuses {asked} records a page: asking for 100"
        );
        let url = with_query(&url, &["per_page"], "per_page", OLD_PER_PAGE.into());
        let answer = self.transport.get(&url, what, lane).await?;
        let answer = self.expect_json(answer, what)?;
        self.per_page.store(OLD_PER_PAGE, Ordering::Relaxed);
        Ok((url, answer))
    }

    pub(super) fn base(&self) -> &Url {
        &self.transport.base
    }

    /// Whether pay may be read.
    pub fn with_pay(&self) -> bool {
        self.with_pay
    }

    fn url(&self, path: &str) -> Url {
        let mut url = self.transport.base.clone();
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url
    }

    /// Only a 200 that says it is JSON is read.
    fn expect_json(&self, answer: Answer, what: &str) -> Result<Answer, HarvestError> {
        match answer.status {
            StatusCode::OK if answer.is_json() => Ok(answer),
            _ => Err(self.refusal(&answer, what)),
        }
    }

    /// Why an answer is not read. Only a 403 or a 404 in a shape of Harvest's own speaks of a role or of the account.
    fn refusal(&self, answer: &Answer, what: &str) -> HarvestError {
        let (account, what, status) = (self.account(), what.to_owned(), answer.status);
        match status {
            StatusCode::UNAUTHORIZED => HarvestError::Refused { account, what },
            StatusCode::FORBIDDEN if is_forbidden(answer) => HarvestError::Forbidden { account, what },
            StatusCode::NOT_FOUND if is_gone(answer) && self.has_version() => {
                HarvestError::UnknownAccount { account, what }
            }
            StatusCode::OK | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => self.not_harvest(answer, what),
            status if status.is_redirection() => self.not_harvest(answer, what),
            status => HarvestError::Status { what, status },
        }
    }

    /// Whether `harvest.base_url` ends in the API's version.
    fn has_version(&self) -> bool {
        self.base().path().trim_end_matches('/').ends_with("/v2")
    }

    /// The error for a response that does not come from Harvest, with advice by the kind of response.
    fn not_harvest(&self, answer: &Answer, what: String) -> HarvestError {
        let (base, status) = (self.base(), answer.status);
        let host = base.host_str().unwrap_or_default();
        let proxy = self.transport.route().proxy_note();
        let advice = if !self.has_version() {
            let base = base.as_str().trim_end_matches('/');
            format!(
                "harvest.base_url is {base}, and Harvest's API answers below /v2; set harvest.base_url to {base}/v2 (if a \
                 gateway adds /v2, check HARVEST_ACCOUNT_ID)"
            )
        } else if status == StatusCode::OK {
            format!(
                "this looks like the page of a captive portal or a proxy in the place of Harvest's answer; sign in there, or \
                 let requests to {host} through{proxy}"
            )
        } else if status.is_redirection() {
            format!(
                "it redirects, which is not followed; check harvest.base_url, or if a captive portal or a proxy redirects, \
                 let requests to {host} through{proxy}"
            )
        } else {
            format!(
                "this answer is not Harvest's own and says nothing about the account or the token; check harvest.base_url \
                 and what is between rosterd and Harvest{proxy}"
            )
        };
        let content_type = match answer.content_type.as_str() {
            "" => "no content type",
            content_type => content_type,
        };
        let sentence =
            format!("{host} answered {status} with {content_type} when asked for {what}; {advice}");
        HarvestError::NotHarvest { what, status, sentence }
    }
}

/// How events name a request: by its question, and by the page's place in the walk, since a cursor tells nobody anything.
pub(super) fn request(url: &Url, page: usize, sent: Sent) -> Request {
    let told = url.query_pairs().filter(|(key, _)| ["updated_since", "user_id"].contains(&key.as_ref()));
    let told: Vec<String> = told.map(|(key, value)| format!("{key}={value}")).collect();
    let question = if told.is_empty() { String::new() } else { format!("?{}", told.join("&")) };
    let page = if page > 1 { format!(", page {page}") } else { String::new() };
    Request::new(format!("GET {}{question}{page}", url.path()), sent)
}

/// Harvest's own 404, `{"status":404,"error":"Not Found"}`. A page of HTML, or a gateway's JSON, comes from elsewhere and
/// says nothing of the record.
fn is_gone(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct NotFound {
        status: u16,
    }
    answer.status == StatusCode::NOT_FOUND
        && answer.is_json()
        && serde_json::from_slice::<NotFound>(&answer.body).is_ok_and(|body| body.status == 404)
}

/// Harvest's own 403, `{"message":"Not authorized!"}`.
fn is_forbidden(answer: &Answer) -> bool {
    #[derive(Deserialize)]
    struct Forbidden {
        message: String,
    }
    answer.is_json()
        && serde_json::from_slice::<Forbidden>(&answer.body).is_ok_and(|body| !body.message.is_empty())
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, HarvestError> {
    serde_json::from_slice(body)
        .map_err(|error| HarvestError::Protocol { what: what.to_owned(), problem: not_as_expected(&error) })
}

fn null_as_default<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    value: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(value)?.unwrap_or_default())
}
