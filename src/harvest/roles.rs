//! Job roles: the list, and one by id.

use super::api::{Client, is_gone, parse_role};
use super::envelope::{Envelope, next_url};
use super::error::HarvestError;
use super::rate_limit::Priority;
use crate::roster::Role;

const LIST: &str = "roles";
/// No account has more pages: a limit for a server that always names another one.
const MAX_PAGES: usize = 100;

pub struct Roles {
    pub readable: Vec<Role>,
    /// How many others the list has. If there are some, an absent role may be one of them.
    pub unreadable: usize,
}

impl Client {
    /// All roles.
    ///
    /// # Errors
    /// Any error of a request, and [`HarvestError::Drifted`] if the list is shorter than its total.
    pub(crate) async fn roles(&self, priority: Priority) -> Result<Roles, HarvestError> {
        let protocol = HarvestError::protocol(LIST);
        let mut url = self.url(LIST);
        url.query_pairs_mut().append_pair("per_page", &self.per_page().to_string());
        let (mut next, mut roles, mut total) =
            (Some(url), Roles { readable: Vec::new(), unreadable: 0 }, None);
        for _ in 0..MAX_PAGES {
            let Some(url) = next.take() else { break };
            let (url, response) = self.list_page(url, LIST, priority).await?;
            let page = Envelope::parse(&response.body, LIST).map_err(&protocol)?;
            let (link, number) = (page.next_link.as_deref(), page.next_page);
            next = next_url(&url, &self.transport.base, link, number).map_err(&protocol)?;
            total = page.total;
            for text in &page.records {
                match parse_role(text.get().as_bytes()) {
                    Some(role) => roles.readable.push(role),
                    None => roles.unreadable += 1,
                }
            }
        }
        let seen = (roles.readable.len() + roles.unreadable) as u64;
        if next.is_some() || total.is_some_and(|total| seen < total) {
            let problem = format!("only {seen} roles were on its pages");
            return Err(HarvestError::Drifted { what: LIST.to_owned(), problem });
        }
        Ok(roles)
    }

    /// One role by id; `None` if Harvest has none.
    ///
    /// # Errors
    /// Any error of the request; [`HarvestError::Protocol`] if the role cannot be read.
    pub(crate) async fn role(&self, id: i64, priority: Priority) -> Result<Option<Role>, HarvestError> {
        let what = format!("{LIST}/{id}");
        let response = self.transport.get(&self.url(&what), &what, priority).await?;
        if is_gone(&response) {
            return Ok(None);
        }
        let response = self.expect_json(response, &what)?;
        let problem = "the role's fields are not as expected";
        parse_role(&response.body).map(Some).ok_or_else(|| HarvestError::protocol(&what)(problem.to_owned()))
    }
}
